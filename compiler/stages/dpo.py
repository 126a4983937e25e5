"""Preference optimization."""

from fractions import Fraction
from typing import Any

from ...spec.record import replace
from ...spec.schema import recipe as r
from ...spec.schema.preference_losses import LOSSES
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training, same_shape


def resolve(spec: r.Dpo, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved, and the defaults of its loss; None after reporting."""
    _belongs(spec, scope)
    defaults = LOSSES[spec.objective].defaults
    filled = {name: value for name, value in defaults.items() if getattr(spec, name) is None}
    stage = resolve_training(replace(spec, **filled), scope, needs=("lr", "data", "batch"))
    return same_shape(stage, scope)


def _belongs(spec: r.Dpo, scope: Scope) -> None:
    """Reports attributes that the loss does not have, and one that it needs."""
    objective = spec.objective
    for name in LOSSES[objective].lacks:
        if name in spec.places:
            those = [f"`{other}`" for other, loss in LOSSES.items() if name not in loss.lacks]
            scope.error(
                "E527",
                f"`{name}` has no effect with `objective = {objective}`",
                spec.at(name),
                f"remove it; it belongs to {' and '.join(those)}",
            )
    if objective == "robust" and not spec.label_smoothing:
        scope.error(
            "E527",
            "`robust` corrects for wrong labels, and needs their share",
            spec.at("objective"),
            "write `label_smoothing = 0.1` for a tenth of them",
        )


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Dpo

    return Dpo


def reference(stage: TrainStage) -> str | None:
    """The stage whose model the policy is kept close to; None if the loss has no reference."""
    spec: Any = stage.spec
    return (spec.reference or stage.parent) if LOSSES[spec.objective].reference else None


DPO = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective, reference=reference),
    peak=Fraction(1, 10_000),
)
