"""Settings of training that may change over time: what the trainer sets before each step."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...spec import schedule as sc
from ...spec.findings.diagnostics import Report
from ...spec.quantity import counted
from ...spec.record import replace
from ...spec.source import Span
from ..program import Segment, State, TrainStage
from ..values import ROUTER_LOSSES, LrPiece
from .clock import Clock
from .course import Course
from .learning_rate import pieces

Setting = float | sc.Schedule | None


def of_stage(stage: TrainStage) -> dict[str, Setting]:
    """The settings that may change, as they are in force in a stage."""
    return {
        "clip": stage.settings["clip"],
        "weight_decay": stage.optimizer.weight_decay,
        "balance": stage.settings["balance"],
        **{name: stage.settings[name] for name in ROUTER_LOSSES if name in stage.settings},
        "mtp_loss": stage.settings["mtp_loss"],
    }


def place(stage: TrainStage, name: str) -> Span | None:
    """Where a stage says a setting; None if it inherits it."""
    given = stage.spec.optimizer if name == "weight_decay" else stage.spec
    if given is None or isinstance(given, str) or getattr(given, name, None) is None:
        return None
    return given.at(name)


def settled(stage: TrainStage, last: State | None, report: Report) -> TrainStage:
    """The stage with a beginning for its settings: one that it inherits is what it was where the
    stage before ended, and a ramp without a left side begins there."""
    found: dict[str, Setting] = {}
    for name, value in of_stage(stage).items():
        before = last.settings.get(name) if last else None
        if not isinstance(value, sc.Schedule):
            found[name] = value
        elif place(stage, name) is None and before is not None:
            found[name] = before
        else:
            found[name] = _begun(value, before, report)
    _has_bias(stage, found["balance"], report)
    _has_experts(stage, report)
    decay = found.pop("weight_decay")
    if decay is not stage.optimizer.weight_decay:
        stage = replace(stage, optimizer=replace(stage.optimizer, weight_decay=decay))
    return replace(stage, settings={**stage.settings, **found})


def _begun(schedule: sc.Schedule, before: float | None, report: Report) -> sc.Schedule:
    first = schedule.segments[0]
    if first.shape == "hold" or first.start is not None:
        return schedule
    if before is None:
        report.add(
            "E444",
            "this ramp has no starting value: there is no value before it",
            first.span,
            help="write the starting value: `1.0 -> 0.1`",
        )
        return schedule
    return replace(schedule, segments=(replace(first, start=before), *schedule.segments[1:]))


def _has_bias(stage: TrainStage, balance: Setting, report: Report) -> None:
    """Reports a bias that moves in a model without one."""
    experts = stage.model.experts
    if balance is None or stage.spec.balance is None or (experts and experts.balance):
        return
    report.add(
        "E467",
        "the routing of this model has no bias that could balance its experts"
        if experts
        else "this model has no experts to balance",
        stage.spec.at("balance"),
        help="write `balance = 0.001` in the model's `experts`"
        if experts
        else "remove `balance`, or give the model `experts`",
    )


def _has_experts(stage: TrainStage, report: Report) -> None:
    """Reports losses of routers in a model without any."""
    for name in ROUTER_LOSSES:
        value = getattr(stage.spec, name, None)
        if value and not stage.model.experts:
            report.add(
                "E467",
                "this model has no experts, and so no routers that could have a loss",
                stage.spec.at(name),
                help=f"remove `{name}`, or give the model `experts`",
            )


def ahead(stage: TrainStage, segments: Sequence[Segment], report: Report) -> None:
    """Reports sequences that have no token as far ahead as the model learns to predict."""
    depth, shortest = stage.model.mtp, min(each.seq_len for each in segments)
    if shortest <= depth:
        report.add(
            "E468",
            f"sequences of {counted(shortest, 'tokens')} have no token that is {depth} behind "
            "the next one",
            stage.spec.at("seq_len") or stage.spec.at(),
            help=f"write `seq_len = {depth + 1}` or more, or a smaller `mtp` in the model",
        )


def schedules(stage: TrainStage) -> dict[str, list[sc.Segment]]:
    """The settings that change, as segments."""
    return {
        name: [*value.segments]
        for name, value in of_stage(stage).items()
        if isinstance(value, sc.Schedule)
    }


def changing(
    stage: TrainStage, knobs: Mapping[str, list[sc.Segment]], course: Course
) -> dict[str, list[LrPiece]]:
    """The pieces of the settings that change, of a balance that is not the model's, of losses of
    routers, and of the weight of further tokens; reports errors."""
    found = {
        name: pieces(knobs[name], course, place(stage, name), knob=name)
        for name in schedules(stage)
    }
    balance, experts = stage.settings["balance"], stage.model.experts
    constant = {name: stage.settings.get(name) for name in ROUTER_LOSSES}
    if balance != (experts and experts.balance):
        constant["balance"] = balance
    if stage.model.mtp:
        constant["mtp_loss"] = stage.settings["mtp_loss"]  # the model has none of its own
    for name, value in constant.items():
        # Of losses, 0 is as if there were none.
        if isinstance(value, float) and experts and (value or name == "balance"):
            hold = [sc.Segment("hold", None, value, None, None)]
            apart = Course(course.length, course.clock, course.report)
            found[name] = pieces(hold, apart, None, knob=name)
    return found


def after(
    stage: TrainStage, found: Mapping[str, list[LrPiece]], step: int, clock: Clock
) -> dict[str, float | None]:
    """The settings in force after `step` steps, at least 1."""
    values: dict[str, Any] = dict(of_stage(stage))
    for name, parts in found.items():
        piece = next(p for p in reversed(parts) if p.from_step < step)
        values[name] = piece.rate(step, clock.tokens_before)
    return values
