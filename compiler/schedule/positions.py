"""Positions in a stage, in steps or in tokens."""

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
    """The length of a stage as the spec gives it."""

    unit: str
    value: Fraction

    def of(self, quantity: Quantity) -> Position:
        """A quantity as a length in the stage: percentages are of the whole."""
        if quantity.unit == "%":
            return Position(self.unit, quantity.value * self.value)
        return Position(quantity.unit, quantity.value)

    def boundary(self, segment: Segment, begin: Border) -> Position | None:
        """The requested end of a segment that begins at `begin`; None if the stage ends it."""
        if segment.bound is None:
            turn = segment.turn
            left = turn.of - turn.number if turn else 1
            if turn is None or left == 1:
                return None
            start = begin.wish(self.unit)
            others = sum((self.of(each).value for each in turn.others), Fraction(0))
            return Position(self.unit, start + (self.value - start - (left - 1) * others) / left)
        position = self.of(segment.bound.quantity)
        if segment.bound.relative:
            return Position(position.unit, position.value + begin.wish(position.unit))
        return position
