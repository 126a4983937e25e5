"""The machines that a phase needs on a site, and the common base of site file tables."""

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
