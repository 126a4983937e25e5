"""Positions in a stage, in steps or in tokens."""

from collections.abc import Sequence
from fractions import Fraction

from ...spec.quantity import Quantity
from ...spec.record import Record
from ...spec.schedule import Segment


class Position(Record, kw_only=False):
    """A requested boundary: in tokens or steps from the beginning of the stage."""

    unit: str
    value: Fraction


class Border(Record, kw_only=False):
    """An actual boundary: its step and tokens, and the request in either unit."""

    step: int
    tokens: int
    wish_steps: Fraction
    wish_tokens: Fraction

    def wish(self, unit: str) -> Fraction:
        return self.wish_tokens if unit == "tokens" else self.wish_steps


START = Border(0, 0, Fraction(0), Fraction(0))


class Length(Record, kw_only=False):
    """The length of a stage as the spec gives it.

    Attributes:
        pace: tokens per step, if all steps have the same; None: they differ.
    """

    unit: str
    value: Fraction
    pace: Fraction | None = None

    def of(self, quantity: Quantity) -> Position:
        """A quantity as a length in the stage: percentages are of the whole."""
        if quantity.unit == "%":
            return Position(self.unit, quantity.value * self.value)
        return Position(quantity.unit, quantity.value)

    def measured(self, quantity: Quantity) -> Fraction | None:
        """A quantity in the unit of the stage's length; None if steps differ, so that what it is
        depends on where it stands."""
        found = self.of(quantity)
        if found.unit == self.unit:
            return found.value
        if self.pace is None:
            return None
        return found.value * self.pace if found.unit == "steps" else found.value / self.pace

    def boundary(self, segment: Segment, begin: Border) -> Position | None:
        """The requested end of a segment that begins at `begin`; None if the stage ends it."""
        if segment.bound is None:
            turn = segment.turn
            left = turn.of - turn.number if turn else 1
            if turn is None or left == 1:
                return None
            start = begin.wish(self.unit)
            others = sum((self.measured(each) or Fraction(0) for each in turn.others), Fraction(0))
            return Position(self.unit, start + (self.value - start - (left - 1) * others) / left)
        position = self.of(segment.bound.quantity)
        if segment.bound.relative:
            return Position(position.unit, position.value + begin.wish(position.unit))
        return position


def pace(batch: Sequence[Segment], seq_len: Sequence[Segment]) -> tuple[Fraction, bool]:
    """The tokens of the first step, and whether all steps have as many.

    Args:
        batch: segments with absolute batches, in tokens or in sequences.
        seq_len: segments with absolute lengths.
    """
    first: Quantity = batch[0].end if batch[0].start is None else batch[0].start
    length = seq_len[0].end
    same = all(each.end == first for each in batch) and all(e.end == length for e in seq_len)
    return first.value * (1 if first.unit == "tokens" else length), same
