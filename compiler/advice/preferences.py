"""Advice on preference training and its samples."""

from collections.abc import Iterator

from ...spec.quantity import counted
from ...spec.schema import recipe as r
from ..program import Scheduled, ScheduledStage
from ..stages.evaluate import EvaluateStage
from ..stages.sample import SampleStage
from . import Found, rule
from .rates import peak, shown


@rule("W641")
def unusual_beta(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    spec = stage.spec
    if not isinstance(spec, r.Dpo | r.Kto):
        return
    low, high, typical = spec.usual_beta
    if spec.beta is not None and not low <= spec.beta <= high:
        yield Found(
            f"beta is {spec.beta:g}, and usually between {low:g} and {high:g}",
            spec.at("beta"),
            f"write `beta = {typical:g}`",
        )


@rule("W642")
def faster_than_before(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if not isinstance(stage.spec, r.Dpo | r.Kto) or stage.parent is None:
        return
    before = program.trained(stage.parent)
    if not isinstance(before, ScheduledStage) or not isinstance(before.spec, r.Sft):
        return
    if peak(stage) > peak(before):
        yield Found(
            f"the learning rate of {stage.spec.kind}, {shown(peak(stage))}, is above that of the "
            f"fine-tuning before it, {shown(peak(before))}",
            stage.spec.at("lr"),
            f"write {shown(peak(before) / 10, 2)} or less",
        )


@rule("W643")
def reference_elsewhere(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    spec = stage.spec
    if isinstance(spec, r.Dpo | r.Kto) and spec.reference and spec.reference != stage.parent:
        yield Found(
            f"the reference `{spec.reference}` is not what this stage starts from, "
            f"`{stage.parent}`",
            spec.at("reference"),
            "leave `reference` out",
        )


@rule("W644", stages=SampleStage)
def equal_draws(stage: SampleStage, program: Scheduled) -> Iterator[Found]:
    if stage.spec.temperature == 0 and stage.spec.draws > 1:
        yield Found(
            f"with temperature 0, all {stage.spec.draws} draws are the same",
            stage.spec.at("temperature"),
            "write `draws = 1`, or a temperature above 0",
        )


@rule("W645", stages=SampleStage)
def best_of_one(stage: SampleStage, program: Scheduled) -> Iterator[Found]:
    if stage.spec.judge and stage.spec.draws == 1:
        yield Found(
            "there is only one draw, so the judge has nothing to choose from",
            stage.spec.at("judge"),
            "write `draws = 4` or more, or remove `judge`",
        )


def _too_long(name: str, tokens: int | None, program: Scheduled) -> int | None:
    longest = program.trained(name).longest
    return longest if tokens and tokens >= longest else None


@rule("W646", stages=SampleStage)
def longer_than_trained(stage: SampleStage, program: Scheduled) -> Iterator[Found]:
    longest = _too_long(stage.of, stage.spec.max_tokens, program)
    if longest:
        yield Found(
            f"answers may have up to {counted(stage.spec.max_tokens, 'tokens')} after the "
            f"prompt, but the model was trained on sequences of {longest:,}",
            stage.spec.at("max_tokens"),
            f"stay well below {longest:,}",
        )


@rule("W647", stages=EvaluateStage)
def measured_longer_than_trained(stage: EvaluateStage, program: Scheduled) -> Iterator[Found]:
    answer = stage.spec.max_tokens
    longest = _too_long(stage.of, answer, program)
    if answer and longest:
        yield Found(
            f"answers may have up to {counted(answer, 'tokens')} after the prompt, but the model "
            f"was trained on sequences of {longest:,}",
            stage.spec.at("max_tokens"),
            f"stay well below {longest:,}",
        )


@rule("W648", stages=None)
def no_pairs(program: Scheduled) -> Iterator[Found]:
    """Pairs of a sample stage that cannot produce any: pairs need two draws, and a judge or a
    verifier."""
    for name, dataset in program.recipe.datasets.items():
        for of in dataset.stages if dataset.kind == "preferences" else ():
            stage = program.stages.get(of)
            if not isinstance(stage, SampleStage):
                continue
            ranked = stage.spec.judge or stage.spec.verify
            if stage.spec.draws < 2 or not ranked:
                missing = "more than one draw" if ranked else "a judge or a verifier"
                yield Found(
                    f"`{name}` is empty: pairs need {missing}",
                    dataset.at(),
                    "write `draws = 4`" if ranked else "write `judge = …` or `verify = […]`",
                )
