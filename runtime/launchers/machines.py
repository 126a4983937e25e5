"""The machines that a phase needs on a site, and what tables of site files have in common."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ...compiler.as_written import counted
from ...compiler.plan.plan import Plan
from ...compiler.values import Phase, Resources
from ..errors import RunError


class Options(BaseModel):
    """A table of a site file: what it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Machines(NamedTuple):
    """What a phase is started on.

    Attributes:
        ranks: processes of a node.
        gpus: of a node.
    """

    nodes: int
    ranks: int
    gpus: int


def machines(plan: Plan, phase: Phase, gpus_per_node: int | None) -> Machines:
    """The nodes for a phase: those of the spec's cluster, or of a site with other ones.

    Args:
        gpus_per_node: of the site's nodes; None: as many as the spec's cluster has.

    Raises: RunError: its ranks cannot be laid out on whole nodes.
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
    """The nodes for a model that writes: its tensor degree stays inside of a node.

    Raises: RunError: it does not.
    """
    if phase.ranks > gpus_per_node:
        raise RunError(
            f"in the phase {phase.name}, a model generates on {counted(phase.ranks, 'GPUs')} of "
            f"each node, but the site's nodes have {gpus_per_node}",
            "choose a cluster of such nodes in the spec, or correct `gpus_per_node` in the site "
            "file",
        )
    return Machines(phase.nodes, phase.ranks, phase.devices)


def _ranks(plan: Plan, phase: Phase) -> int:
    """The ranks of a gang, which all of its jobs have that have a mesh."""
    own = set(phase.jobs)
    meshes = (getattr(job, "resources", None) for job in plan.jobs if job.id in own)
    return max(mesh.world_size for mesh in meshes if isinstance(mesh, Resources))
