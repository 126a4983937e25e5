"""Supervised fine-tuning on dialogs."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Sft, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    return resolve_training(spec, scope, needs=("lr", "data"))


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Sft

    return Sft


SFT = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective, learns_all=lambda spec: spec.loss_on == "all"),
    peak=Fraction(3, 1000),
)
