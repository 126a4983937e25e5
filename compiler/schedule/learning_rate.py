"""The learning rate of a stage, by step."""

from math import sqrt

from ...spec.record import replace
from ...spec.schedule import Segment
from ...spec.source import Span
from ..curves import CURVES
from ..values import LrPiece
from .clock import Clock
from .course import Course
from .positions import Border


def pieces(
    segments: list[Segment],
    course: Course,
    span: Span | None,
    *,
    after_zero: bool = False,
    knob: str = "lr",
) -> list[LrPiece]:
    """The pieces of a stage's learning rate, or of another number; reports errors.

    Args:
        segments: with absolute rates.
        span: the place of the rate in the spec.
        after_zero: whether the previous stage ended at 0.
    """
    found: list[LrPiece] = []
    for segment, begin, end in course.borders(knob, segments):
        if segment.shape == "hold":
            found.append(hold(float(segment.end), begin.step, min(end.step, course.clock.steps)))
            continue
        if segment.start is not None:
            start = float(segment.start)
        else:
            start = found[-1].rate(begin.step, course.clock.tokens_before) if found else 0.0
        if CURVES[segment.shape].by_ratio and (start <= 0 or segment.end <= 0):
            course.report.add(
                "E448",
                f"`{segment.shape}` neither begins nor ends at 0",
                segment.span,
                help=f"end it at a small value: `-> 1e-7 {segment.shape}`",
            )
            continue
        found.append(_ramp(segment, start, begin, end, course))
    if knob == "lr" and found and all(piece.start == piece.end == 0 for piece in found):
        why = "the previous stage ended at 0" if after_zero else "nothing would be learned"
        course.report.add(
            "E449",
            "the learning rate is 0 throughout this stage",
            span,
            help=f"{why}: give the starting value, `3e-5 -> 0`",
        )
    return found


def following(pieces: list[LrPiece], clock: Clock, scaling: str) -> list[LrPiece]:
    """The pieces, multiplied by a power of the batch in tokens over that of the first step: 1 if
    `scaling` is linear (arXiv:1706.02677), 1/2 if it is sqrt (arXiv:2205.10287)."""
    if scaling == "none":
        return pieces
    first = next(pace for step, _, pace in reversed(clock.starts) if step == 0)
    stops = [*(step for step, _, _ in clock.starts[1:]), clock.steps]
    found: list[LrPiece] = []
    for (begin, _, pace), end in zip(clock.starts, stops, strict=True):
        factor = pace / first if scaling == "linear" else sqrt(pace / first)
        for piece in pieces:
            start, stop = max(piece.from_step, begin), min(piece.to_step, end)
            if start < stop:
                rates = {"start": piece.start * factor, "end": piece.end * factor}
                found.append(replace(piece, from_step=start, to_step=stop, **rates))
    return found


def hold(value: float, begin: int, end: int) -> LrPiece:
    """One value from step `begin` to step `end`."""
    return LrPiece(
        from_step=begin,
        to_step=end,
        shape="hold",
        start=value,
        end=value,
        clock="steps",
        origin=begin,
        length=1,
    )


def _ramp(segment: Segment, start: float, begin: Border, end: Border, course: Course) -> LrPiece:
    clock, origin, length = course.over(segment, begin, end)
    return LrPiece(
        from_step=begin.step,
        to_step=min(end.step, course.clock.steps),
        shape=segment.shape,
        start=start,
        end=float(segment.end),
        clock=clock,
        origin=origin,
        length=length,
    )
