"""Reward models from preferences."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Reward, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    for name in ("margin", "center") if spec.objective == "plackett_luce" else ():
        if name in spec.places:
            scope.error(
                "E527",
                f"`{name}` has no effect with `objective = plackett_luce`",
                spec.at(name),
                "remove it; it belongs to `bradley_terry`, which compares two responses at a time",
            )
    return resolve_training(spec, scope, needs=("lr", "data", "batch"))


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Reward

    return Reward


REWARD = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective),
    peak=Fraction(1, 1000),
)
