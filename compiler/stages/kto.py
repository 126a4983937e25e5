"""Preference optimization from rated answers."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training, same_shape


def resolve(spec: r.Kto, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    return same_shape(resolve_training(spec, scope, needs=("lr", "data", "batch")), scope)


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Kto

    return Kto


def reference(stage: TrainStage) -> str | None:
    """The stage whose model the policy is kept close to."""
    spec: Any = stage.spec
    return spec.reference or stage.parent


KTO = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective, reference=reference),
    peak=Fraction(1, 10_000),
)
