"""The clock of a stage: steps and tokens while batch and sequence length change.

A step consumes batch × seq_len tokens. A boundary given in tokens falls on the nearest step
boundary (a tie goes to the later one); each is rounded from its own position, so that no error
accumulates; every segment has at least one step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from ..spec.diagnostics import Report
from ..spec.quantity import Quantity, plain, short
from ..spec.schedule import Segment
from ..spec.source import Span
from . import curves
from .values import BatchPiece, Rounding


def nearest(value: Fraction) -> int:
    """The nearest integer; halves go up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


@dataclass(frozen=True)
class Position:
    """Where a boundary is wished for: in tokens or steps from where the stage begins."""

    unit: str
    value: Fraction


@dataclass(frozen=True)
class Border:
    """Where a boundary is: its step and tokens, and the wish in either unit."""

    step: int
    tokens: int
    wish_steps: Fraction
    wish_tokens: Fraction

    def wish(self, unit: str) -> Fraction:
        return self.wish_tokens if unit == "tokens" else self.wish_steps


START = Border(0, 0, Fraction(0), Fraction(0))


@dataclass(frozen=True)
class Length:
    """The length of a stage as the spec gives it."""

    unit: str
    value: Fraction

    def of(self, quantity: Quantity) -> Position:
        """A quantity as a length in the stage: percentages are of the whole."""
        if quantity.unit == "%":
            return Position(self.unit, quantity.value * self.value)
        return Position(quantity.unit, quantity.value)

    def boundary(self, segment: Segment, begin: Border) -> Position | None:
        """The wished end of a segment that begins at `begin`; None where the stage ends it."""
        if segment.bound is None:
            return None
        position = self.of(segment.bound.quantity)
        if segment.bound.relative:
            return Position(position.unit, position.value + begin.wish(position.unit))
        return position


@dataclass
class _Knob:
    """One of the two schedules that set the pace, walked piece by piece."""

    what: str
    pieces: Iterator[tuple[Any, Position | None, bool, Span | None]]
    value: Any = None
    boundary: Position | None = None
    named: bool = True
    span: Span | None = None
    since: int = 0
    begin: Border = START
    changes: list[tuple[int, Any]] = field(default_factory=list)

    def advance(self, border: Border) -> bool:
        """On to the next piece, which begins at `border`; False where there is none."""
        self.begin = border
        self.since = border.step
        piece = next(self.pieces, None)
        if piece is None:
            return False
        self.value, self.boundary, self.named, self.span = piece
        self.changes.append((border.step, self.value))
        return True


@dataclass(frozen=True)
class Clock:
    """Batch and sequence length by step, and the conversion of positions into steps."""

    steps: int
    tokens: int
    lengths: list[tuple[int, int, int]]
    batches: list[BatchPiece]
    roundings: list[Rounding]
    starts: list[tuple[int, int, int]]

    def tokens_before(self, step: int) -> int:
        """Tokens before `step`."""
        for start, tokens, pace in reversed(self.starts):
            if start <= step:
                return tokens + (step - start) * pace
        return 0

    def border(self, position: Position) -> Border:
        """The step boundary nearest to a position, wherever it lies."""
        if position.unit == "steps":
            step = nearest(position.value)
            tokens = self.tokens_before(step)
            return Border(step, tokens, position.value, Fraction(tokens))
        start, tokens, pace = self.starts[0]
        for entry in self.starts:
            if entry[1] <= position.value:
                start, tokens, pace = entry
        step = start + nearest((position.value - tokens) / pace)
        return Border(step, self.tokens_before(step), Fraction(step), position.value)


def run_clock(
    length: Length,
    seq_len: list[Segment],
    batch: list[Segment],
    granule: int,
    report: Report,
    where: Span | None,
) -> Clock | None:
    """Walks a stage from its beginning to its end.

    Args:
        seq_len: segments with absolute lengths in tokens.
        batch: segments with absolute batches (quantities in tokens or sequences).
        granule: sequences by which a ramp of the batch moves.
    """
    knobs = [
        _Knob("seq_len", iter(())),
        _Knob("batch", iter(())),
    ]
    lengths, batches = knobs
    lengths.pieces = _holds(seq_len, length, lengths)
    batches.pieces = _levels(batch, length, batches, lengths, granule, report)
    lengths.advance(START)
    batches.advance(START)
    here = START
    starts: list[tuple[int, int, int]] = []
    pieces: list[tuple[int, int]] = []
    roundings: list[Rounding] = []
    end_wish = Position(length.unit, length.value)
    while True:
        sequences = _sequences(batches, lengths.value, report)
        if sequences is None:
            return None
        pace = sequences * lengths.value
        starts.append((here.step, here.tokens, pace))
        pieces.append((here.step, sequences))

        def step_of(position: Position) -> int:
            if position.unit == "steps":
                return nearest(position.value)
            return here.step + nearest((position.value - here.tokens) / pace)  # noqa: B023

        end = max(step_of(end_wish), here.step + 1)
        due = {
            knob.what: max(step_of(knob.boundary), knob.since + 1)
            for knob in knobs
            if knob.boundary is not None
        }
        coming = min(due.values(), default=end)
        if coming >= end:
            tokens = here.tokens + (end - here.step) * pace
            _round("the end of the stage", end_wish, end, tokens, roundings)
            break
        tokens = here.tokens + (coming - here.step) * pace
        for knob in knobs:
            if due.get(knob.what) != coming:
                continue
            boundary = knob.boundary
            assert boundary is not None
            if knob.named:
                _round(f"the end of a segment of {knob.what}", boundary, coming, tokens, roundings)
            by_steps = boundary.unit == "steps"
            border = Border(
                coming,
                tokens,
                boundary.value if by_steps else Fraction(coming),
                Fraction(tokens) if by_steps else boundary.value,
            )
            if not knob.advance(border):
                report.add(
                    "E447",
                    f"{knob.what} has no value after step {coming}: the stage goes on",
                    knob.span,
                    help="leave the bound of the last segment out",
                )
                return None
        here = Border(coming, tokens, Fraction(coming), Fraction(tokens))
    for knob in knobs:
        for piece in knob.pieces:
            if piece[3] is knob.span:
                continue
            report.add(
                "E441",
                f"this segment of {knob.what} can never be reached: the stage ends before it, after "
                f"{short(tokens)} tokens",
                piece[3] or where,
                help="make the stage longer, or the segments before it shorter",
            )
            break
    return Clock(
        steps=end,
        tokens=tokens,
        lengths=[
            (start, stop, value)
            for (start, value), stop in zip(
                lengths.changes, [s for s, _ in lengths.changes[1:]] + [end], strict=True
            )
        ],
        batches=_merge(pieces, end),
        roundings=roundings,
        starts=starts,
    )


def _round(
    what: str, wish: Position, step: int, tokens: int, roundings: list[Rounding]
) -> None:
    if wish.unit == "tokens" and wish.value != tokens:
        roundings.append(
            Rounding(what=what, wished_tokens=plain(wish.value), step=step, tokens=tokens)
        )


def _merge(pieces: list[tuple[int, int]], end: int) -> list[BatchPiece]:
    merged: list[BatchPiece] = []
    for (start, sequences), stop in zip(pieces, [s for s, _ in pieces[1:]] + [end], strict=True):
        if merged and merged[-1].sequences == sequences:
            merged[-1] = replace(merged[-1], to_step=stop)
        else:
            merged.append(BatchPiece(from_step=start, to_step=stop, sequences=sequences))
    return merged


def _holds(
    segments: list[Segment], length: Length, knob: _Knob
) -> Iterator[tuple[Any, Position | None, bool, Span | None]]:
    for segment in segments:
        yield segment.end, length.boundary(segment, knob.begin), True, segment.span


def _levels(
    segments: list[Segment], length: Length, knob: _Knob, lengths: _Knob, granule: int,
    report: Report,
) -> Iterator[tuple[Any, Position | None, bool, Span | None]]:  # fmt: skip
    """Constant batches; a ramp becomes the levels between its ends, `granule` sequences apart."""
    before: Quantity | None = None
    for segment in segments:
        boundary = length.boundary(segment, knob.begin)
        start = segment.start or before
        before = segment.end
        if segment.shape == "hold" or start is None or start == segment.end:
            yield segment.end, boundary, True, segment.span
            continue
        begin = knob.begin
        over = length.of(segment.over) if segment.over else None
        if over is None:
            stop = boundary or Position(length.unit, length.value)
            over = Position(stop.unit, stop.value - begin.wish(stop.unit))
        unit = lengths.value if segment.end.unit == "tokens" else 1
        first, last = start.value / unit, segment.end.value / unit
        count = int(abs(last - first) // granule)
        direction = granule if last > first else -granule
        for level in range(count):
            share = curves.inverse(segment.shape, (level + 1) / count)
            position = begin.wish(over.unit) + over.value * Fraction(share).limit_denominator(10**9)
            if boundary and boundary.unit == over.unit and position >= boundary.value:
                break
            value = Quantity((first + level * direction) * unit, segment.end.unit)
            yield value, Position(over.unit, position), False, segment.span
        else:
            level = count
        value = Quantity((first + level * direction) * unit, segment.end.unit)
        yield value if level < count else segment.end, boundary, True, segment.span


def _sequences(knob: _Knob, seq_len: int, report: Report) -> int | None:
    """The batch in force in sequences of `seq_len` tokens."""
    batch: Quantity = knob.value
    sequences = batch.value / seq_len if batch.unit == "tokens" else batch.value
    if sequences.denominator == 1 and sequences > 0:
        return int(sequences)
    low = max(int(sequences), 1)
    report.add(
        "E442",
        f"a batch of {plain(batch.value)} tokens is not a whole number of sequences of {seq_len}",
        knob.span,
        help=f"the neighbours are {plain(Fraction(low * seq_len))} ({low} sequences) and "
        f"{plain(Fraction((low + 1) * seq_len))} ({low + 1} sequences)",
    )
    return None
