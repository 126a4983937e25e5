"""Advice on gates, evaluations, checkpoints and averages."""

from collections.abc import Iterator
from fractions import Fraction

from ...spec.quantity import counted, short
from ...spec.schema import recipe as r
from ..program import Scheduled, ScheduledStage, StageOfMany, WeightsStage
from ..schedule.clock import nearest
from ..schedule.positions import Length
from . import Found, rule
from .rates import warm_up

LEFT = 0.2
"""More than this share of an average from the first step means that it has no time to forget it."""


@rule("W631")
def gate_never_passes(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    for each in stage.spec.gate.requirements if stage.spec.gate else ():
        above_all = each.measure == "needle" and each.op == ">" and each.value >= 1
        below_all = each.measure == "loss" and each.op in ("<", "<=") and each.value <= 0
        if above_all or below_all:
            yield Found(
                "this gate can never pass: "
                + ("no score is above 100%" if above_all else "no loss is 0 or less"),
                each.at(),
                "write `needle >= 100%`" if above_all else "write a loss that can be reached",
            )


@rule("W632")
def gate_always_passes(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    for each in stage.spec.gate.requirements if stage.spec.gate else ():
        if (each.measure == "needle" and each.op == ">=" and each.value == 0) or (
            each.measure == "needle" and each.op == "<=" and each.value >= 1
        ):
            yield Found("this gate always passes", each.at(), "write `needle >= 90%`")


@rule("W633", stages=None)
def needles_beyond_training(program: Scheduled) -> Iterator[Found]:
    """Haystacks longer than any sequence that the stage or its predecessors trained on."""
    longest: dict[str, int] = {}
    for name, stage in program.stages.items():
        if isinstance(stage, WeightsStage):
            longest[name] = stage.longest
        if isinstance(stage, ScheduledStage):
            before = longest[program.trained(stage.parent).name] if stage.parent else 0
            longest[name] = max(before, stage.longest)
        needle = getattr(stage.spec, "needle", None)
        if needle is None or isinstance(stage, StageOfMany):
            continue
        trained = longest[program.trained(name).name]
        beyond = max(needle.lengths or [0])
        if beyond > trained:
            yield Found(
                f"a haystack of {short(beyond)} tokens is longer than the {short(trained)} that "
                "the model was trained on",
                needle.at("lengths"),
                f"measure up to {short(trained)}, or train on longer sequences",
            )


@rule("W635")
def no_checkpoint(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    every = stage.spec.checkpoint
    if every and every.unit == "steps" and every.value > stage.steps:
        yield Found(
            f"a checkpoint every {every} in a stage of {stage.steps:,}",
            stage.spec.at("checkpoint"),
            "the stage would start over after every interruption",
        )


@rule("W640")
def rollback_to_the_beginning(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    policy = stage.spec.spikes
    if policy is None or policy.do != "rollback":
        return
    back = stage.settings["spikes"].back
    longest = max(each.to_step - each.from_step for each in stage.segments)
    if back >= longest:
        yield Found(
            f"a rollback goes back {counted(back, 'steps')}, which is to the beginning: the stage "
            f"has at most {counted(longest, 'steps')} in a row",
            policy.at("back"),
            f"write `back = {max(longest // 10, 1)} steps`",
        )


def _window(stage: ScheduledStage, average: r.Polyak) -> int:
    """The step at which the averaged part of a stage begins."""
    if average.over is None:
        return 0
    length = Length("steps", Fraction(stage.steps)).of(average.over)
    if length.unit == "steps":
        return stage.steps - nearest(length.value)
    share = float(length.value) / stage.tokens
    return round(stage.steps * (1 - min(share, 1)))


@rule("W636")
def average_of_warm_up(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    average, piece = stage.spec.average, warm_up(stage)
    if average and piece and _window(stage, average) < piece.to_step:
        yield Found(
            "the average includes weights from the warm-up",
            stage.spec.at("average"),
            f"average only a later part: `polyak every {average.every} steps over 20%`",
        )


@rule("W637")
def average_of_one(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    average = stage.spec.average
    if average and average.every > max(stage.steps - _window(stage, average), 1) // 2:
        steps = stage.steps - _window(stage, average)
        yield Found(
            f"averaging every {average.every:,} of {steps:,} steps averages fewer than two weights",
            stage.spec.at("average"),
            f"write `polyak every {max(steps // 20, 1)} steps`",
        )


@rule("W634")
def average_of_the_beginning(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    decay = stage.spec.ema
    left = 0.0 if decay is None else decay ** (stage.steps - 1)
    if decay is not None and left > LEFT:
        better = float(f"{1 - 3 / stage.steps:.3g}") if stage.steps > 6 else 0.5
        yield Found(
            f"after {counted(stage.steps, 'steps')}, {left:.0%} of the average is still the "
            "weights of the first step",
            stage.spec.at("ema"),
            f"lower the decay: with `ema = {better:g}` it is {better ** (stage.steps - 1):.0%}",
        )


@rule("W638", stages=None)
def one_of_one(program: Scheduled) -> Iterator[Found]:
    """Means and choices over a single stage, if the spec names just one."""
    for stage in program.stages.values():
        if isinstance(stage, StageOfMany) and len(stage.of) == 1:
            yield Found(
                f"the {stage.spec.kind} of a single stage is that stage itself",
                stage.spec.at("of"),
                "name at least two stages, or continue from the stage itself",
            )
