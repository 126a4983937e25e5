"""Jobs whose models do not fit where the plan puts them, and machines that would do."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...spec.quantity import counted
from ...spec.record import replace
from ..costs.generation import generation
from ..costs.hardware import GPUS, Gpu, gpu
from ..costs.reading import Reader, reading
from ..values import Architecture, Generation
from .measures import SuiteMeasure
from .plan import ForwardJob, Job, Plan, WritingJob

USUAL_NODE = 8
"""GPUs per node when suggesting other GPUs."""
MORE_NODES = 1024
"""The most nodes tried for a model that does not fit."""


class Misfit(NamedTuple):
    """A job that cannot run.

    Attributes:
        code: of the finding.
        attribute: the attribute of the job's stage that it is about.
    """

    job: WritingJob | ForwardJob
    code: str
    message: str
    help: str
    attribute: str


def misfits(plan: Plan) -> Iterator[Misfit]:
    """The jobs of a plan that cannot run, once per stage and reason."""
    jobs = {job.key: job for job in plan.jobs}
    told = set()
    for job in plan.jobs:
        if plan.aside(job):
            continue
        for found in _of(job, jobs):
            if (job.stage, found.code) not in told:
                told.add((job.stage, found.code))
                yield found


def _of(job: Job, jobs: Mapping[str, Job]) -> Iterator[Misfit]:
    if isinstance(job, ForwardJob):
        yield from _reads(job)
    if isinstance(job, WritingJob):
        key = job.inputs.get("export.0", job.inputs.get("model"))
        model = getattr(jobs.get(key or ""), "model", None)
        if isinstance(model, Architecture):
            yield from _writes(job, model)


def _writes(job: WritingJob, model: Architecture) -> Iterator[Misfit]:
    of = job.generation
    if of is not None and not of.fits:
        assert job.resources
        yield Misfit(
            job,
            "E561",
            f"{_named(model)} does not fit where {job.id} writes with it: {_sizes(of)}",
            f"it fits on {_what_fits(model, job.resources.device, of)}",
            "cluster",
        )
        return
    measures = [getattr(job, "measure", None), *getattr(job, "measures", ())]
    suites = [each for each in measures if isinstance(each, SuiteMeasure)]
    if suites and job.resources is not None and job.resources.pipeline > 1:
        yield Misfit(
            job,
            "E562",
            f"{_named(model)} needs {counted(job.resources.pipeline, 'nodes')}, and over several "
            f"vLLM gives no log-likelihoods, which suites such as `{suites[0].name}` are scored by",
            "leave `suites` out, or use GPUs of which a node holds the model: "
            + _what_fits(model, job.resources.device, of, nodes=1),
            "suites",
        )


def _reads(job: ForwardJob) -> Iterator[Misfit]:
    of = job.reading
    if of is None or of.fits:
        return
    parts = {part: size / 1e9 for part, size in of.memory.items()}
    yield Misfit(
        job,
        "E563",
        f"{_named(job.model)} does not fit where {job.id} reads with it: on "
        f"{counted(job.resources.world_size, 'GPUs')} each has {parts['parameters']:.1f} GB of "
        f"fp32 weights, {parts['buffers']:.1f} of gathered weights, {parts['activations']:.1f} of "
        f"activations for rows of {counted(job.seq_len, 'tokens')}, and "
        f"{parts['logits'] + parts['margin']:.1f} of logits and margin, and room for "
        f"{of.gpu_memory / 1e9:.1f}",
        _way_to_read(job),
        "cluster",
    )


def _way_to_read(job: ForwardJob) -> str:
    """Machines on which a model can read: more of these GPUs, or other ones."""
    mesh, known, found = job.resources, gpu(job.resources.device), []

    def fits(device: Gpu, shards: int = 1) -> bool:
        wider = replace(mesh, world_size=mesh.world_size * shards, shard=mesh.shard * shards)
        at = Reader.of(job.model, job.seq_len, wider, job.torchtitan, scores=job.scores)
        return reading(at, device, None).fits

    more = (2**power for power in range(1, MORE_NODES.bit_length()))
    shards = next((each for each in more if known and fits(known, each)), None)
    if known and shards:
        found.append(f"{mesh.world_size * shards:,} × {known.name}, sharded over all of them")
    bigger = (each for each in sorted(GPUS.values(), key=lambda g: g.memory) if fits(each))
    if other := next(bigger, None):
        found.append(f"{mesh.world_size:,} × {other.name}")
    if found:
        return f"it fits on {' or '.join(found)}"
    return "lower `micro_batch` or `seq_len`, or spread each layer over more GPUs with `tensor`"


def _named(model: Architecture) -> str:
    return f"{model.family} {model.size or ''}".strip()


def _sizes(of: Generation) -> str:
    """The sizes that do not fit, in GB per GPU."""
    weights, work, cache = (of.memory[part] / 1e9 for part in ("weights", "work", "sequence"))
    gpus = f"{of.tensor} GPUs" if of.pipeline == 1 else f"{of.pipeline} nodes × {of.tensor} GPUs"
    return (
        f"on {gpus} each has {weights:.1f} GB of weights, {work:.1f} of activations and "
        f"{cache:.1f} of cache for {counted(of.context, 'tokens')}, and room for "
        f"{of.share * of.gpu_memory / 1e9:.1f}"
    )


def _what_fits(
    model: Architecture, device: str, of: Generation | None, nodes: int | None = None
) -> str:
    """Machines on which it fits: more of the same nodes, or nodes with other GPUs.

    Args:
        nodes: the most nodes; None: as many of the same GPUs as needed.
    """
    assert of
    known = gpu(device)
    found = []
    if nodes is None and known:
        more = generation(
            model,
            known,
            per_node=of.tensor,
            nodes=MORE_NODES,
            context=of.context,
            draws=None,
        )
        if more.fits:
            found.append(f"{counted(more.pipeline, 'nodes')} × {more.tensor} × {known.name}")
    for other in sorted(GPUS.values(), key=lambda each: each.memory):
        one = generation(model, other, per_node=USUAL_NODE, nodes=1, context=of.context, draws=None)
        if one.fits:
            found.append(f"1 node × {one.tensor} × {other.name}")
            break
    return " or ".join(found) or "no GPU that is known here"
