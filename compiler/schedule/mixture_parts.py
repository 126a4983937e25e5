"""The mixture of a stage, by step: ramps become levels of integer weights."""

from fractions import Fraction
from functools import partial
from itertools import pairwise

from ...spec.record import replace
from ...spec.schedule import Segment
from ..program import MixturePart
from .course import Course
from .mixture import RESOLUTION, between, integer_weights

Shares = dict[str, Fraction]
RAMP_LEVELS = 100
RAMP_RESOLUTION = 1000
"""The most levels of a ramp of a mixture, and the denominator of its shares."""


def parts(segments: list[Segment], course: Course) -> tuple[list[MixturePart], Shares]:
    """The parts of a stage's mixture, and the shares at its end; reports errors.

    Args:
        segments: with absolute shares.
    """
    found: list[MixturePart] = []
    shares: Shares = {}
    for segment, begin, end in course.borders("data", segments):
        stop = min(end.step, course.clock.steps)
        if segment.shape == "hold":
            shares = segment.end
            levels = [MixturePart(begin.step, stop, integer_weights(shares))]
            _nothing_lost(segment, shares, levels, RESOLUTION, course)
        else:
            before = shares if segment.start is None else segment.start
            clock, origin, size = course.over(segment, begin, end)
            mixed = partial(_mixed, segment, before, origin, size)
            before_step = partial(_position, clock, course)
            levels = []
            count = min(RAMP_LEVELS, stop - begin.step)
            edges = [begin.step + (stop - begin.step) * k // count for k in range(count + 1)]
            for first, last in pairwise(edges):
                middle = Fraction(before_step(first) + before_step(last), 2)
                weights = integer_weights(mixed(middle), RAMP_RESOLUTION)
                levels.append(MixturePart(first, last, weights))
            shares = mixed(Fraction(before_step(stop)))
            _nothing_lost(segment, shares, levels, RAMP_RESOLUTION, course)
        found += levels
    return _merged(found), shares


def _position(clock: str, course: Course, step: int) -> int:
    """The beginning of a step, in a clock's steps or tokens."""
    return step if clock == "steps" else course.clock.tokens_before(step)


def _mixed(segment: Segment, before: Shares, origin: int, size: int, position: Fraction) -> Shares:
    """The shares of a ramp from `before`, at a position in steps or tokens."""
    share = min(max(float((position - origin) / size), 0.0), 1.0)
    return between(segment.shape, before, segment.end, share)


def _merged(found: list[MixturePart]) -> list[MixturePart]:
    """Joins consecutive parts with the same weights."""
    merged: list[MixturePart] = []
    for part in found:
        if merged and merged[-1].weights == part.weights:
            merged[-1] = replace(merged[-1], to_step=part.to_step)
        else:
            merged.append(part)
    return merged


def _nothing_lost(
    segment: Segment, shares: Shares, levels: list[MixturePart], resolution: int, course: Course
) -> None:
    """Reports sources whose share is rounded to zero throughout a segment."""
    for name, share in shares.items():
        if share > 0 and not any(part.weights.get(name) for part in levels):
            course.report.add(
                "E208",
                f"the share of `{name}` is too small: it would be rounded to nothing",
                segment.span,
                help=f"give it at least 1/{resolution} of the mixture",
            )
