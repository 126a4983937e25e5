"""The clock of a stage: steps and tokens while batch and sequence length change.

A step consumes batch × seq_len tokens. A boundary given in tokens falls on the nearest step
boundary (a tie goes to the later one); each is rounded from its own position, so that no error
accumulates; every segment has at least one step.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from ..spec.diagnostics import Report
from ..spec.quantity import Quantity, counted, plain, short
from ..spec.record import Record, field, replace
from ..spec.schedule import Segment
from ..spec.source import Span
from . import curves
from .order import crowded, forward, overrun
from .positions import START, Border, Length, Position
from .values import BatchPiece, Rounding

_LONGER = "make the stage longer, or the segments before it shorter"
MAX_LEVELS = 10_000
"""A ramp of the batch moves in at most so many levels; a longer way takes larger strides."""


def nearest(value: Fraction) -> int:
    """The nearest integer; halves go up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


class _Knob:
    """One of the two schedules that set the pace, walked segment by segment, level by level.

    Attributes:
        begins: the step where each segment that was reached begins.
        change: where the level in force gives way to the next one of its ramp, if there is one.
        end: where the segment in force ends; None: with the stage.
    """

    def __init__(
        self,
        what: str,
        segments: Iterable[Segment],
        length: Length,
        granule: int = 1,
        lengths: tuple[int, ...] = (),
    ) -> None:
        self.what = what
        self.segments = iter(segments)
        self.length = length
        self.granule = granule
        self.lengths = lengths
        self.segment: Segment | None = None
        self.begin = START
        self.levels: Iterator[tuple[Any, Position | None]] = iter(())
        self.value: Any = None
        self.change: Position | None = None
        self.end: Position | None = None
        self.changes: list[tuple[int, Any]] = []
        self.begins: list[int] = []

    def next_segment(self, border: Border, seq_len: int, report: Report) -> bool:
        """On to the segment that begins at `border`; False where there is none."""
        segment = next(self.segments, None)
        if segment is None:
            return False
        self.segment, self.begin = segment, border
        self.begins.append(border.step)
        self.end = self.length.boundary(segment, border)
        if self.end:
            forward(self.what, segment, border.wish(self.end.unit), self.length, report)
        start = self.value if segment.start is None else segment.start
        if segment.shape == "hold":
            self.levels = iter([(segment.end, None)])
        else:
            self.levels = _levels(self, segment, start, seq_len)
        self.next_level(border)
        return True

    def next_level(self, border: Border) -> None:
        self.value, self.change = next(self.levels)
        self.changes.append((border.step, self.value))


class Clock(Record):
    """Batch and sequence length by step, and the conversion of positions into steps."""

    steps: int
    tokens: int
    lengths: list[tuple[int, int, int]]
    batches: list[BatchPiece]
    roundings: list[Rounding]
    starts: list[tuple[int, int, int]]
    borders: dict[Position, Border]
    batch_at_end: Quantity
    begins: dict[str, list[int]] = field(default_factory=dict)

    def tokens_before(self, step: int) -> int:
        """Tokens before `step`."""
        for start, tokens, pace in reversed(self.starts):
            if start <= step:
                return tokens + (step - start) * pace
        return 0

    def border(self, position: Position) -> Border:
        """The step boundary nearest to a position, wherever it lies.

        Where batch or sequence length change at that very position, it is where they do: what is
        requested at the same place happens at the same step.
        """
        if position in self.borders:
            return self.borders[position]
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
    sizes = tuple(segment.end for segment in seq_len)
    lengths = _Knob("seq_len", seq_len, length)
    batches = _Knob("batch", batch, length, granule, sizes)
    knobs = [lengths, batches]
    lengths.next_segment(START, 0, report)
    batches.next_segment(START, lengths.value, report)
    here = START
    starts: list[tuple[int, int, int]] = []
    pieces: list[tuple[int, int]] = []
    roundings: list[Rounding] = []
    borders: dict[Position, Border] = {}
    end_wish = Position(length.unit, length.value)
    while True:
        sequences = _sequences(batches, lengths.value, report)
        if sequences is None:
            return None
        pace = sequences * lengths.value
        starts.append((here.step, here.tokens, pace))
        pieces.append((here.step, sequences))

        def step_of(position: Position, least: int) -> int:
            step = (
                nearest(position.value)
                if position.unit == "steps"
                else here.step + nearest((position.value - here.tokens) / pace)  # noqa: B023
            )
            return max(step, least)

        end = step_of(end_wish, here.step + 1)
        ends = {k.what: step_of(k.end, k.begin.step + 1) for k in knobs if k.end}
        moves = {k.what: step_of(k.change, here.step) for k in knobs if k.change}
        coming = min([*ends.values(), *moves.values()], default=end)
        if coming >= end:
            while batches.change and step_of(batches.change, 0) <= end:
                batches.next_level(here)
            tokens = here.tokens + (end - here.step) * pace
            note_rounding("the end of the stage", end_wish, end, tokens, roundings)
            break
        tokens = here.tokens + (coming - here.step) * pace
        here = Border(coming, tokens, Fraction(coming), Fraction(tokens))
        for knob in knobs:
            wish = knob.end
            if wish and ends[knob.what] == coming:
                note_rounding(
                    f"the end of a segment of {knob.what}", wish, coming, tokens, roundings
                )
                borders[wish] = replace(here, **{f"wish_{wish.unit}": wish.value})
                while knob.change and step_of(knob.change, 0) <= coming:
                    knob.next_level(here)
                if not knob.next_segment(borders[wish], lengths.value, report):
                    report.add(
                        "E447",
                        f"{knob.what} has no value after step {coming:,}: the stage continues",
                        knob.segment and knob.segment.span,
                        help="leave the bound of the last segment out",
                    )
                    return None
            elif moves.get(knob.what) == coming:
                knob.next_level(here)
    for knob in knobs:
        unreached = next(knob.segments, None)
        assert knob.segment
        if not unreached:
            last = step_of(knob.end, 0) if knob.end else end
            overrun(knob.what, knob.segment, last, end, report)
        else:
            hint = crowded(knob.segment, knob.begin.wish(length.unit), length)
            report.add(
                "E441",
                f"this segment of {knob.what} can never be reached: the stage ends before it, "
                f"after {short(tokens)} tokens",
                unreached.span or where,
                help=f"{_LONGER}{hint}",
            )
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
        borders=borders,
        begins={knob.what: knob.begins for knob in knobs},
        batch_at_end=batches.value,
    )


def borders(
    segments: Sequence[Segment], length: Length, clock: Clock, knob: str, report: Report
) -> list[tuple[Segment, Border, Border]]:
    """Each segment of a knob with its beginning and its end; unreachable ones are reported."""
    result: list[tuple[Segment, Border, Border]] = []
    begin = START
    stop = Border(clock.steps, clock.tokens, Fraction(clock.steps), Fraction(clock.tokens))
    for segment in segments:
        if begin.step >= clock.steps:
            hint = ""
            if result:
                hint = crowded(result[-1][0], result[-1][1].wish(length.unit), length)
            report.add(
                "E441",
                f"this segment of {knob} can never be reached: the stage ends after "
                f"{counted(clock.steps, 'steps')}",
                segment.span,
                help=f"{_LONGER}{hint}",
            )
            return result
        wish = length.boundary(segment, begin)
        if wish and not forward(knob, segment, begin.wish(wish.unit), length, report):
            return result
        end = clock.border(wish) if wish else stop
        if end.step <= begin.step:
            end = replace(end, step=begin.step + 1, tokens=clock.tokens_before(begin.step + 1))
        result.append((segment, begin, end))
        begin = end
    if segments[-1].bound and begin.step < clock.steps:
        report.add(
            "E447",
            f"{knob} has no value after step {begin.step:,}: the stage has {clock.steps:,}",
            segments[-1].span,
            help="leave the bound of the last segment out",
        )
    overrun(knob, segments[-1], begin.step, clock.steps, report)
    return result


def note_rounding(
    what: str, wish: Position, step: int, tokens: int, roundings: list[Rounding]
) -> None:
    """Adds to `roundings` what was requested in tokens and falls elsewhere."""
    if wish.unit == "tokens" and wish.value != tokens:
        roundings.append(
            Rounding(what=what, wished_tokens=plain(wish.value), step=step, tokens=tokens)
        )


def _merge(pieces: list[tuple[int, int]], end: int) -> list[BatchPiece]:
    merged: list[BatchPiece] = []
    for (start, sequences), stop in zip(pieces, [s for s, _ in pieces[1:]] + [end], strict=True):
        if stop == start:  # a ramp's level that is over before a step is
            continue
        if merged and merged[-1].sequences == sequences:
            merged[-1] = replace(merged[-1], to_step=stop)
        else:
            merged.append(BatchPiece(from_step=start, to_step=stop, sequences=sequences))
    return merged


def _levels(
    knob: _Knob, segment: Segment, start: Quantity, seq_len: int
) -> Iterator[tuple[Quantity, Position | None]]:
    """A ramp of the batch as levels: each with where it gives way to the next.

    Levels are `granule` sequences apart, of the longest length in use where the batch counts
    tokens, and never above the ramp's curve; the end is reached exactly, where the curve does.
    """
    unit = segment.end.unit
    first = start.value
    if start.unit != unit:
        first = first * seq_len if unit == "tokens" else first / seq_len
    size = knob.granule * (lcm(*knob.lengths) if unit == "tokens" else 1)
    way = segment.end.value - first
    count = max(int(abs(way) // size), 1)
    stride = -(-count // MAX_LEVELS)
    count = max(count // stride, 1)
    begin = knob.begin
    if segment.over:
        over = knob.length.of(segment.over)
    else:
        end = knob.end or Position(knob.length.unit, knob.length.value)
        over = Position(end.unit, end.value - begin.wish(end.unit))
    for level in range(count):
        share = Fraction(curves.inverse(segment.shape, (level + 1) / count))
        position = begin.wish(over.unit) + over.value * share.limit_denominator(10**9)
        value = first + level * stride * size * (1 if way > 0 else -1)
        yield Quantity(value, unit), Position(over.unit, position)
    yield segment.end, None


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
        knob.segment and knob.segment.span,
        help=f"the neighbours are {plain(Fraction(low * seq_len))} ({low} sequences) and "
        f"{plain(Fraction((low + 1) * seq_len))} ({low + 1} sequences)",
    )
    return None
