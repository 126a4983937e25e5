"""Direct preference optimization."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Dpo, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    stage = resolve_training(spec, scope, needs=("lr", "data", "batch"))
    if stage and spec.reference:
        other = scope.language_model(spec.reference, spec.at("reference"))
        if other and scope.trained(other).model != stage.model:
            scope.error(
                "E420",
                f"`{spec.reference}` has another shape",
                spec.at("reference"),
                "the reference of dpo must have the same shape as the trained model",
            )
    return stage


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Dpo

    return Dpo


def reference(stage: TrainStage) -> str | None:
    """The stage whose model the policy is kept close to."""
    spec: Any = stage.spec
    return spec.reference or stage.parent


DPO = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective, reference=reference),
    peak=Fraction(1, 10_000),
)
