"""The phases of a plan: stretches of consecutive jobs that need the same machines.

A launcher starts them one after the other. If a gate may fail, its extensions train in the gang
that continues training, if that has the same ranks: a gate that passes, as most do, then costs no
idle machine. A gate whose model has to generate on GPUs of its own cannot be decided there: its
extensions are phases of their own. A policy writes in the gang that trains it, if it has the same
machines: all its turns are then one phase, whose processes stay.
"""

from collections.abc import Sequence
from math import fsum
from typing import Any, Literal, NamedTuple

from ...spec.record import replace
from ..costs.digits import digits
from ..values import Phase, Resources
from .plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    DrawJob,
    EnsembleJob,
    EvaluateJob,
    ExportJob,
    FilterJob,
    ForwardJob,
    GateJob,
    Plan,
    RolloutJob,
    SampleJob,
    TokenizerJob,
    TrainJob,
    WeightsJob,
    WritingJob,
)

Kind = Literal["cpu", "gang", "generate", "small"]

KINDS: dict[type, Kind] = {
    TokenizerJob: "cpu",
    DatasetJob: "cpu",
    FilterJob: "cpu",
    WeightsJob: "small",
    AverageJob: "small",
    ExportJob: "small",
    DrawJob: "generate",
    EnsembleJob: "small",
    SampleJob: "small",
    RolloutJob: "small",
    BestJob: "generate",
    EvaluateJob: "generate",
    GateJob: "generate",
}
"""What single-process jobs need; all others have a mesh of ranks."""
_MORE = ("small", "cpu", "generate", "gang")
"""Kinds in ascending order of needs: joined jobs have the highest kind among them."""


class Need(NamedTuple):
    """The machines that a job needs: nodes, processes and GPUs of each, and their name."""

    nodes: int
    ranks: int
    device: str
    devices: int


def phases(plan: Plan) -> tuple[Phase, ...]:
    """The phases of a plan, in order; every job that the plan makes is in one of them."""
    return tuple(phases_of([job for job in plan.jobs if not plan.aside(job)]))


def phases_of(jobs: Sequence[Any]) -> list[Phase]:
    """The phases of jobs that are in an order in which they can run."""
    found: list[Phase] = []
    meshes: dict[str, Resources] = {}
    expert: int | Literal["writing"] | None = None
    for job, home in _homes(jobs):
        mesh = _mesh(job, meshes)
        if mesh:
            meshes[job.key] = mesh
        phase = _alone(job, _need(job, mesh), kind_of(job))
        # Processes cannot redistribute experts over another number of ranks once they have started.
        placed = (use_of(job) if phase.kind == "gang" else None) or expert
        same = expert in (None, placed)
        joins = home and found and found[-1].kind == "gang"
        joins = joins or (in_turn(job) and found and _machines(found[-1]) == _machines(phase))
        if joins or (found and same and _together(found[-1], phase)):
            found[-1] = _joined(found[-1], phase)
            expert = placed
        else:
            found.append(phase)
            expert = placed if phase.kind == "gang" else None
    return [replace(phase, number=number) for number, phase in enumerate(found, 1)]


def _homes(jobs: Sequence[Any]) -> list[tuple[Any, bool]]:
    """Each job, and whether the gang before it does it whatever it needs. That is so if it only
    compares or combines scores, reads answers that a gang has written, or exports a policy for its
    next turn; or if it follows an extension and runs only if that does, unless a job of the attempt
    has ranks of its own."""
    apart = {job.extends for job in jobs if job.extends and _own_ranks(job)}
    turns = {job.inputs["model"] for job in jobs if in_turn(job)}
    written = {job.key for job in jobs if isinstance(job, DrawJob) and kind_of(job) == "gang"}
    found, extending = [], False
    for job in jobs:
        extending = job.extends is not None and (extending or type(job) not in KINDS)
        follows = extending and type(job) in KINDS and job.extends not in apart
        small = kind_of(job) == "small"
        compares = small and isinstance(job, WritingJob)
        reads = small and not written.isdisjoint(job.inputs.values())
        # As phases of their own, they would split the turns of a policy into jobs of a queue.
        combines = isinstance(job, EnsembleJob | RolloutJob) or job.key in turns
        found.append((job, follows or compares or reads or combines))
    return found


def _own_ranks(job: Any) -> bool:
    """Whether several ranks generate text for the job, with their own engine, on GPUs."""
    mesh = ranks_of(job)
    return isinstance(job, WritingJob) and mesh is not None and mesh.device != "cpu"


def in_turn(job: Any) -> bool:
    """Whether a job writes the answers that a policy, or a student, learns from next."""
    return isinstance(job, DrawJob) and job.window is not None


def ranks_of(job: Any) -> Resources | None:
    """The mesh whose ranks do a job together; None if any single process does it."""
    mesh = job.resources if isinstance(job, TrainJob | ForwardJob | WritingJob) else None
    return None if isinstance(job, WritingJob) and mesh and mesh.world_size == 1 else mesh


def use_of(job: Any) -> int | Literal["writing"] | None:
    """What processes are for once they have done a job of all ranks; None: they can do any after
    it.

    torch identifies meshes by their sizes. Meshes that differ only in expert parallelism cannot
    follow each other in one process. vLLM keeps some of the GPU's memory, so jobs in which it
    writes get their own processes, but for those that alternate with training.
    """
    if isinstance(job, WritingJob):
        return "writing" if _own_ranks(job) and not in_turn(job) else None
    return job.resources.expert


def _mesh(job: Any, meshes: dict[str, Resources]) -> Resources | None:
    """The mesh of a job, or the one on which its model was made."""
    if isinstance(job, TrainJob | ForwardJob) or (isinstance(job, WritingJob) and job.resources):
        return job.resources
    roles = ("model", "of.0", "export.0", "scores", "scores.0", "judged", "judged.0", "draws")
    return next((meshes[job.inputs[r]] for r in roles if job.inputs.get(r) in meshes), None)


def _need(job: Any, mesh: Resources | None) -> Need:
    """What a job needs: a whole mesh, a node of it to generate on, or a single process anywhere."""
    kind = kind_of(job)
    if isinstance(job, WritingJob) and job.resources:
        own = job.resources
        devices = 0 if own.device == "cpu" else own.per_node
        return Need(own.world_size // own.per_node, own.per_node, own.device, devices)
    if mesh is None or (kind != "gang" and (kind != "generate" or mesh.device == "cpu")):
        return Need(1, 1, "cpu", 0)
    each = min(mesh.per_node or mesh.world_size, mesh.world_size)
    devices = 0 if mesh.device == "cpu" else each
    if kind == "generate":
        return Need(1, 1, mesh.device, devices)
    return Need(-(-mesh.world_size // each), each, mesh.device, devices)


def kind_of(job: Any) -> Kind:
    """The kind of machine that a job needs; one that only compares scores needs no GPU. On CPUs the
    gang that trains also writes."""
    if isinstance(job, EvaluateJob | GateJob | BestJob) and not _exports(job):
        return "small"
    if isinstance(job, WritingJob) and ranks_of(job) and not _own_ranks(job):
        return "gang"
    return KINDS.get(type(job), "gang")


def _exports(job: WritingJob) -> bool:
    """Whether a job measures exports rather than only scores."""
    return any(role == "model" or role.startswith("export") for role in job.inputs)


def _alone(job: Any, need: Need, kind: Kind) -> Phase:
    """The phase of one job."""
    names = {TrainJob: "cost", WritingJob: "generation", ForwardJob: "reading"}
    of = next((getattr(job, n) for kind, n in names.items() if isinstance(job, kind)), None)
    seconds = of.seconds if of and not job.extends else None
    return Phase(
        number=0,
        kind=kind,
        nodes=need.nodes,
        ranks=need.ranks,
        device=need.device,
        devices=need.devices,
        jobs=[job.id],
        conditional=job.extends is not None,
        seconds=seconds,
    )


def _machines(phase: Phase) -> Need:
    return Need(phase.nodes, phase.ranks, phase.device, phase.devices)


def _together(before: Phase, phase: Phase) -> bool:
    """Whether consecutive jobs are one phase: they need the same machines, or one of them is small
    and needs less than the other."""
    kinds = {before.kind, phase.kind}
    # Generation on several GPUs has its own processes.
    if _machines(before) == _machines(phase):
        return kinds != {"gang", "generate"} or phase.world_size == 1
    return kinds == {"small", "generate"}


def _joined(before: Phase, phase: Phase) -> Phase:
    """Two phases joined, on the machines of the one that needs more."""
    more = max(before, phase, key=lambda each: _MORE.index(each.kind))
    known = [each.seconds for each in (before, phase) if each.seconds is not None]
    return replace(
        more,
        jobs=[*before.jobs, *phase.jobs],
        conditional=before.conditional and phase.conditional,
        seconds=digits(fsum(known)) if known else None,
    )
