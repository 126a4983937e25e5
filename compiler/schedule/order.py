"""Checks that the segments of a schedule follow each other, and end with their stage."""

from collections.abc import Sequence
from fractions import Fraction

from ...spec.findings.diagnostics import Report
from ...spec.quantity import counted
from ...spec.record import replace
from ...spec.schedule import Bound, Segment
from ...spec.schema.recipe import Training
from .positions import Length, Position

_WORDS = (
    "`until` counts from the beginning of the stage, `for` from the beginning of the segment: "
    "`for {0}` would end it after {1}"
)


def ordered(
    what: str, segments: Sequence[Segment], length: Length, first: Fraction, report: Report
) -> None:
    """Reports segments that do not end after they begin, as far as that can be told without the
    tokens per step.

    Args:
        what: the knob.
        first: tokens of the first step.
    """
    begin: Position | None = Position(length.unit, Fraction(0))
    for segment in segments:
        if segment.bound is None:
            _fills(what, segment, length, first, report)
            return
        end = length.of(segment.bound.quantity)
        if begin is not None and begin.unit != end.unit:
            begin = None if begin.value else replace(end, value=Fraction(0))
        if not segment.bound.relative:
            if begin is not None and not forward(what, segment, begin.value, length, report):
                return
            begin = end
        elif begin is not None:
            begin = replace(end, value=end.value + begin.value)


def _fills(what: str, segment: Segment, length: Length, first: Fraction, report: Report) -> None:
    """Reports turns of a `repeat` that cannot fill the stage: its length is in one unit, theirs in
    another, and steps differ."""
    others = segment.turn.others if segment.turn else ()
    apart = next((each for each in others if length.measured(each) is None), None)
    if apart is not None:
        near = replace(length, pace=first).measured(apart)
        assert near is not None
        rounded = Position(length.unit, max(Fraction(round(near)), Fraction(1)))
        report.add(
            "E466",
            f"the turns of this `repeat` of {what} fill the stage, whose length is in "
            f"{length.unit}, but `{apart}` of theirs is in another unit, and steps do not all have "
            "the same number of tokens",
            segment.span,
            help=f"write `{place(rounded).replace(',', '')}`, which `{apart}` is at the beginning "
            "of the stage, or a share of it, such as `2%`; or add `for …` to this segment",
        )


def turn(segment: Segment) -> str:
    """Which turn of a `repeat` a segment belongs to, for messages; "" if it is none."""
    of = segment.turn
    return f" in turn {of.number + 1} of {of.of}" if of else ""


def forward(what: str, segment: Segment, begin: Fraction, length: Length, report: Report) -> bool:
    """Whether a segment ends after it begins; reports it if not.

    Args:
        begin: where it begins, in the unit of its bound.
    """
    bound = segment.bound
    if bound is None or bound.relative:
        return True
    end = length.of(bound.quantity)
    if end.value > begin:
        return True
    start, longer = replace(end, value=begin), replace(end, value=begin + end.value)
    if end.value == begin:
        message = f"this segment of {what} is empty: it begins and ends after {place(end)}"
    else:
        message = (
            f"this segment of {what} ends before it begins: it begins after {place(start)}, and "
            f"`until {written(bound)}` is after {place(end)}"
        )
    least = f"{float(begin / length.value * 100):.6g}%" if bound.quantity.unit == "%" else ""
    room = ""
    if longer.unit == length.unit and longer.value >= length.value:
        room = f", where the stage is over after {place(Position(length.unit, length.value))}"
    report.add(
        "E455",
        message,
        bound.span or segment.span,
        help=_WORDS.format(written(bound), place(longer))
        + f"{room}; `until` takes more than {least or place(start)} here",
    )
    return False


def crowded(segment: Segment, begin: Fraction, length: Length) -> str:
    """What a segment that leaves no room for the next one may have meant: `until` instead of `for`.

    Args:
        begin: where it begins, in the unit of the stage's length.
    """
    bound = segment.bound
    if bound is None or not bound.relative or segment.turn:
        return ""
    end = length.of(bound.quantity)
    if end.unit != length.unit or not 0 < begin < end.value < length.value:
        return ""
    longer = replace(end, value=begin + end.value)
    return (
        f"; the one before begins after {place(replace(end, value=begin))}, and "
        f"`for {written(bound)}` counts from there, to {place(longer)}: `until {written(bound)}` "
        f"would end it after {place(end)}"
    )


def overrun(what: str, segment: Segment, end: int, steps: int, report: Report) -> None:
    """Reports a last segment that is a ramp and cannot finish within the stage.

    Args:
        end: the step at which it would finish.
        steps: of the stage.
    """
    bound = segment.bound
    if bound is None or segment.shape == "hold" or segment.over or end <= steps:
        return
    report.add(
        "E456",
        f"this ramp of {what} never ends: it lasts until step {end:,}, but the stage has {steps:,}",
        bound.span or segment.span,
        help="remove the bound to let the ramp end with the stage; for a part of a longer curve, "
        f"write `over {written(bound)}`"
        if bound.relative
        else "remove the bound to let the ramp end with the stage",
    )


def within(spec: Training, length: Length, steps: int, tokens: int, report: Report) -> None:
    """Reports an average over more than the stage, and one beside a moving average."""
    average = spec.average
    if average and spec.ema is not None:
        report.add(
            "E464",
            "a stage has one result: either the mean of `average` or that of `ema`",
            spec.at("ema"),
            help="remove one of them",
        )
    if average is None or average.over is None:
        return
    over = length.of(average.over)
    whole = tokens if over.unit == "tokens" else steps
    if over.unit == length.unit:
        whole = length.value
    if over.value <= whole:
        return
    report.add(
        "E457",
        f"the average is over {place(over)}, but the stage has "
        f"{place(Position(over.unit, Fraction(whole)))}",
        average.at("over"),
        help="remove `over` to average over the whole stage",
    )


def profiled(spec: Training, steps: int, report: Report) -> None:
    """Reports a profile of steps that the stage does not have."""
    profile = spec.profile
    if profile is None or profile.steps[-1] < steps:
        return
    count = min(len(profile.steps), 3, steps)
    report.add(
        "E572",
        f"the profile ends with step {profile.steps[-1]:,}, but the stage has "
        f"{counted(steps, 'steps')}, from 0 to {steps - 1:,}",
        profile.at("steps"),
        help=f"write steps of the stage: `steps = [{steps - count}..{steps - 1}]`",
    )


def evaluated(spec: Training, steps: int, segments: int, report: Report) -> None:
    """Reports evaluations further apart than the stage is long, and those that are to decide about
    a stage of several jobs.

    Args:
        segments: how many there are.
    """
    asked = spec.evaluate
    if asked is None:
        return
    if asked.every > steps:
        report.add(
            "E587",
            f"an evaluation every {counted(asked.every, 'steps')}, but the stage has "
            f"{counted(steps, 'steps')}",
            asked.at("every"),
            help=f"write `every = {max(steps // 10, 1)} steps`, or `every = {steps} steps` for the "
            "end alone",
        )
    if asked.decides and segments > 1:
        attribute = "patience" if asked.patience else "keep"
        report.add(
            "E586",
            f"a loss cannot decide here: this stage is cut into {segments} jobs, where its "
            "lengths, its placement or its RoPE base change, or at a checkpoint stage",
            asked.at(attribute),
            help=f"remove `{attribute}`, or write a stage of its own for the part where it decides",
        )


def written(bound: Bound) -> str:
    """The length of a bound, as the spec writes it."""
    if bound.span is None:
        return str(bound.quantity)
    text = bound.span.source.text[bound.span.start : bound.span.end].split(maxsplit=1)
    return " ".join(text[-1].split())


def place(position: Position) -> str:
    """A position with its unit, for people."""
    value = position.value
    number = f"{int(value):,}" if value.denominator == 1 else f"{float(value):,.10g}"
    return f"{number} {position.unit.removesuffix('s') if value == 1 else position.unit}"
