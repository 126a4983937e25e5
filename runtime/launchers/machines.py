"""The machines that a phase needs on a site, and the common base of site file tables."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ...compiler.as_written import counted
from ...compiler.plan.plan import Plan
from ...compiler.values import Phase, Resources
from ..errors import RunError


class Options(BaseModel):
    """A table of a site file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Machines(NamedTuple):
    """The nodes that a phase is started on.

    Attributes:
        ranks: processes per node.
        gpus: GPUs per node.
    """

    nodes: int
    ranks: int
    gpus: int


def machines(plan: Plan, phase: Phase, gpus_per_node: int | None) -> Machines:
    """The nodes for a phase: those of the spec's cluster, or of a site with other nodes.

    Args:
        gpus_per_node: of the site's nodes; None: as many as in the spec's cluster.

    Raises: RunError: the ranks do not fill whole nodes.
    """
    if phase.device == "cpu":
        return Machines(phase.nodes, phase.ranks, 0)
    if phase.kind == "generate" and phase.world_size > 1:
        return _writing(phase, gpus_per_node or phase.devices)
    if phase.kind != "gang":
        return Machines(1, phase.ranks, min(phase.devices, gpus_per_node or phase.devices))
    ranks = _ranks(plan, phase)
    each = gpus_per_node or phase.devices
    if ranks <= each:
        return Machines(1, ranks, ranks)
    if ranks % each:
        raise RunError(
            f"the phase {phase.name} has {counted(ranks, 'ranks')}, which do not fill nodes of "
            f"{counted(each, 'GPUs')}: {ranks % each} are left over",
            "choose a cluster, or degrees in `parallel`, whose product is a multiple of "
            f"{each}, or correct `gpus_per_node` in the site file",
        )
    return Machines(ranks // each, each, each)


class Allocation(NamedTuple):
    """Machines, and the phases that they do one after the other.

    Attributes:
        needs: what each phase uses of the machines.
    """

    phases: tuple[Phase, ...]
    needs: tuple[Machines, ...]

    @property
    def machines(self) -> Machines:
        """Enough for every phase."""
        return Machines(*map(max, zip(*self.needs, strict=True)))

    @property
    def name(self) -> str:
        """The name of its first phase, under which its logs are."""
        return self.phases[0].name

    @property
    def numbers(self) -> tuple[int, int]:
        """Of the first and the last phase."""
        return self.phases[0].number, self.phases[-1].number

    def options(self, gpus_per_node: int | None) -> list[str]:
        """What `node` is told of the phases; argument as for `machines`."""
        first, last = self.numbers
        said = ["--phase", self.name, "--ranks", str(self.machines.ranks)]
        if last > first:
            said += ["--through", str(last)]
            said += ["--gpus-per-node", str(gpus_per_node)] if gpus_per_node else []
        return said

    def shown(self) -> str:
        """Its phases, in words."""
        first, last = self.numbers
        return f"phase {self.name}" if first == last else f"phases {first} to {last}"


def allocations(
    plan: Plan,
    phases: Sequence[Phase],
    gpus_per_node: int | None,
    alike: Callable[[Phase, Phase], bool] = lambda one, other: True,
) -> list[Allocation]:
    """Phases, of which those that follow each other are together if they need the same machines, or
    if one stage alternates between training and models that write: a policy by turns, or a stage
    whose gates decide whether it goes on. Phase by phase, hundreds of jobs would each wait in a
    queue for nodes that the one before has just given back.

    Args:
        gpus_per_node: see `machines`.
        alike: whether the site treats two phases the same.

    Raises: RunError: the ranks of a phase do not fill whole nodes.
    """
    stages = {job.id: job.stage for job in plan.jobs}
    own = [{stages.get(job) for job in phase.jobs} - {None} for phase in phases]
    pairs = list(zip(phases, own, strict=True))
    writes = Counter(stage for phase, of in pairs if phase.kind == "generate" for stage in of)
    turning = {stage for stage, count in writes.items() if count > 1}
    found: list[Allocation] = []
    before: set[str | None] = set()
    for phase, of in pairs:
        needs = machines(plan, phase, gpus_per_node)
        last = found[-1] if found else None
        turn = bool(before & of & turning)
        if last and _stays(last, phase, needs, turn=turn) and alike(last.phases[-1], phase):
            found[-1] = Allocation((*last.phases, phase), (*last.needs, needs))
        else:
            found.append(Allocation((phase,), (needs,)))
        before = of
    return found


def _stays(on: Allocation, phase: Phase, needs: Machines, *, turn: bool) -> bool:
    """Whether a phase is done on the machines of those before it."""
    several = needs.gpus or needs.nodes * needs.ranks > 1
    same = on.machines == needs and several
    return on.phases[-1].device == phase.device and bool(turn or same)


def _writing(phase: Phase, gpus_per_node: int) -> Machines:
    """The nodes for models that write: a tensor parallel group stays within a node.

    Raises: RunError: a node has fewer GPUs than the groups of one node need.
    """
    if phase.ranks > gpus_per_node:
        raise RunError(
            f"in the phase {phase.name}, models generate on {counted(phase.ranks, 'GPUs')} of "
            f"each node, but the site's nodes have {gpus_per_node}",
            "choose a cluster of such nodes in the spec, or correct `gpus_per_node` in the site "
            "file",
        )
    return Machines(phase.nodes, phase.ranks, phase.devices)


def _ranks(plan: Plan, phase: Phase) -> int:
    """The number of ranks of a gang, the same for all of its jobs with a mesh."""
    own = set(phase.jobs)
    meshes = (getattr(job, "resources", None) for job in plan.jobs if job.id in own)
    return max(mesh.world_size for mesh in meshes if isinstance(mesh, Resources))
