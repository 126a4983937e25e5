"""Distillation from the probabilities of a teacher."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ...spec.schema.convert_schedule import DIALOGS
from ..lowering.way import Way
from ..program import ScheduledStage, TrainStage
from ..resolve.scope import Scope
from .kind import TrainingKind
from .training import lower_training, resolve_training


def resolve(spec: r.Distill, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    stage = resolve_training(spec, scope, needs=("lr", "data"))
    _of_its_own(spec, stage, scope)
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


def _of_its_own(spec: r.Distill, stage: TrainStage | None, scope: Scope) -> None:
    """Reports what a stage lacks or cannot have that learns from the student's own answers."""
    if not spec.on_policy:
        for name in ("prompts", "max_tokens", "refresh"):
            if name in spec.places:
                scope.error(
                    "E522",
                    f"`{name}` has no effect here: it belongs to `on_policy`",
                    spec.at(name),
                    f"write `on_policy = 30%` too, or remove `{name}`",
                )
        return
    if spec.prompts:
        scope.data(spec.prompts, "prompts", spec.at("prompts"))
    for message, name, help in _unfit(spec, stage):
        scope.error("E529", message, spec.at(name) or spec.at("on_policy"), help)


def _unfit(spec: r.Distill, stage: TrainStage | None) -> Iterator[tuple[str, str, str]]:
    """What does not go with answers of the student: a message, the attribute, and the way out."""
    for name, example in (("prompts", "asked"), ("max_tokens", "256")):
        if getattr(spec, name) is None:
            yield f"`on_policy` needs `{name}`", "on_policy", f"write `{name} = {example}`"
    if stage and stage.spec.counts != DIALOGS:
        yield (
            "with `on_policy`, a batch counts dialogs: nobody knows how many answers fill a row",
            "batch",
            "write `batch = 64 dialogs`",
        )
    if spec.steps is None and (spec.epochs or spec.tokens):
        yield (
            "the length of a stage whose student writes a part of its data is in steps",
            "epochs" if spec.epochs else "tokens",
            "write `steps = …`",
        )
    for name in ("drop_last", "average", "ema", "gate"):
        if getattr(spec, name, None):
            yield f"`{name}` does not go with `on_policy`", name, f"remove `{name}`"


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
