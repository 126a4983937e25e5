"""Distillation from the probabilities of a teacher."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..lowering.way import Way
from ..program import ScheduledStage, TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Distill, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    stage = resolve_training(spec, scope, needs=("lr", "data"))
    teacher = scope.language_model(spec.teacher, spec.at("teacher"))
    if stage is None or teacher is None:
        return stage
    of = scope.trained(teacher)
    if of.tokenizer != stage.tokenizer:
        scope.error(
            "E411",
            f"the teacher `{spec.teacher}` has a different tokenizer: its probabilities are of "
            "other tokens",
            spec.at("teacher"),
            "take a teacher with the tokenizer of the model that is trained; or have the teacher "
            "write answers in a `sample` stage, and learn these in an `sft` stage",
        )
    elif spec.top_k > min(of.model.vocab, stage.model.vocab):
        scope.error(
            "E528",
            f"`top_k` is {spec.top_k:,}, and there are only "
            f"{min(of.model.vocab, stage.model.vocab):,} tokens",
            spec.at("top_k"),
            "lower it: 64 tokens usually have nearly all of the probability",
        )
    return stage


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Distill

    return Distill


def teacher(stage: ScheduledStage) -> str:
    """The stage whose probabilities are learned."""
    spec: Any = stage.spec
    return spec.teacher


DISTILL = TrainingKind(
    resolve=resolve,
    lower=lower_training,
    way=Way(
        objective=objective,
        learns_all=lambda spec: spec.loss_on == "all",
        teacher=teacher,
    ),
    peak=Fraction(3, 1000),
)
