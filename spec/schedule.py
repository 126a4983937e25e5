"""Schedules as written in the recipe: relative, with `last`, not yet in steps."""

from fractions import Fraction
from typing import Any, Literal, get_args

from .quantity import Quantity
from .record import Record
from .source import Span

Shape = Literal[
    "hold", "linear", "cosine", "half_cosine", "sqrt", "exponential", "inverse", "inverse_sqrt"
]
"""How the value of a segment changes from its beginning to its end."""
SHAPES: tuple[Shape, ...] = tuple(shape for shape in get_args(Shape) if shape != "hold")
"""The shapes of ramps, as the language names them."""


class Last(Record, kw_only=False):
    """The value with which the `from` stage ended; mixtures may scale it and renormalise."""

    factors: tuple[tuple[str, Fraction], ...] = ()


LAST = Last()


class Auto(Record, kw_only=False):
    """The placement that the compiler finds fastest."""


AUTO = Auto()


class Bound(Record, kw_only=False):
    """`for` (from the beginning of the segment) or `until` (from the beginning of the stage)."""

    relative: bool
    quantity: Quantity
    span: Span | None = None


class Turn(Record, kw_only=False):
    """Where a segment of a `repeat` stands.

    Attributes:
        number: which turn it belongs to, from 0.
        of: how many turns there are.
        place: its place among the segments of a turn.
        others: the lengths of the others of a turn, for one that has no bound: it is as long as
            lets the turns that are left fill what is left of the stage in equal parts.
    """

    number: int
    of: int
    place: int
    others: tuple[Quantity, ...] = ()


class Segment(Record, kw_only=False):
    """A constant (`shape` hold, `start` is None) or a ramp.

    Attributes:
        start: where a ramp begins; None: at the current value of the knob.
        end: the constant, or where the ramp ends.
        over: length of the whole curve; None: the segment's own length.
        levels: how far apart the levels of a ramp of the batch are; None: as the ranks divide them.
        turn: of a segment of a `repeat`, which comes once for each turn.
    """

    shape: Shape
    start: Any
    end: Any
    over: Quantity | None
    bound: Bound | None
    span: Span | None = None
    levels: Quantity | None = None
    turn: Turn | None = None


class Schedule(Record, kw_only=False):
    """Consecutive segments."""

    segments: tuple[Segment, ...]
    span: Span | None = None

    @property
    def units(self) -> set[str]:
        """The units of the quantities at the ends of its segments."""
        ends = (end for each in self.segments for end in (each.start, each.end))
        return {end.unit for end in ends if isinstance(end, Quantity)}


def constant(value: Any, span: Span | None = None) -> Schedule:
    """The schedule that keeps one value."""
    return Schedule((Segment("hold", None, value, None, None, span),), span)
