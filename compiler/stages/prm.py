"""Process reward models, from answers whose steps are labelled."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Prm, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    return resolve_training(spec, scope, needs=("lr", "data", "batch"))


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Prm

    return Prm


PRM = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(objective=objective),
    peak=Fraction(1, 1000),
)
