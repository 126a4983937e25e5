"""How a stage computes: whether its hardware and its model have all that it asks for."""

from ...spec.schema import recipe as r
from ..program import Hardware
from ..resolve.scope import Scope
from ..torchtitan.told import refused
from ..values import ModelShape
from .attention import in_force
from .dispatcher import sending
from .precision import Chosen, check


def possible(
    scope: Scope, spec: r.Training, asked: Chosen, where: Hardware, model: ModelShape
) -> Chosen:
    """What a stage asks for, without what it would take over from another and cannot have; reports
    what it says itself and cannot have."""
    settings = in_force(scope, spec, asked.settings, where, model)
    _told(scope, where, settings["torchtitan"])
    settings = sending(scope, spec, settings, where, model, (asked.precision, asked.recompute))
    found = asked._replace(settings=settings)
    check(scope, spec, found, where, model)
    return found


def _told(scope: Scope, where: Hardware, stage: r.Torchtitan | None) -> None:
    """Reports fields that torchtitan does not take on this hardware, unless it is not used."""
    for field in refused(where.device, where.torchtitan, stage) if scope.ranks is None else ():
        scope.error("E429", field.message, field.span, field.help)
