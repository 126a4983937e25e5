"""The clock of a stage: steps and tokens while batch and sequence length change.

A step consumes batch × seq_len tokens. A boundary given in tokens is rounded to the nearest step
boundary (the later one in a tie), each from its own position, so that errors do not accumulate;
every segment has at least one step.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.quantity import Quantity, counted, plain, short
from ...spec.record import Record, field, replace
from ...spec.schedule import Segment
from ...spec.source import Span
from .. import curves
from ..values import BatchPiece, Rounding
from .order import crowded, forward, overrun, turn
from .positions import START, Border, Length, Position

_LONGER = "make the stage longer, or the segments before it shorter"
_UNBOUND = "remove the bound of the last segment"
MAX_LEVELS = 10_000
"""The most levels of a ramp of the batch; a longer ramp has larger strides."""


def nearest(value: Fraction) -> int:
    """The nearest integer; halves are rounded up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


class _Knob:
    """One of the two schedules that set the pace, walked segment by segment, level by level.

    Attributes:
        begins: the first step of each segment reached so far.
        sized: the first steps of the levels whose size the spec sets.
        change: where the current level changes to the next one of its ramp, if any.
        end: where the current segment ends; None: with the stage.
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
        self.sized: list[int] = []

    def next_segment(self, border: Border, seq_len: int, report: Report) -> bool:
        """Moves to the segment that begins at `border`; False if there is none."""
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
            if segment.levels and not _reached(segment, start, seq_len, report):
                segment = self.segment = replace(segment, levels=None)
            self.levels = _levels(self, segment, start, seq_len)
        self.next_level(border)
        return True

    def next_level(self, border: Border) -> None:
        self.value, self.change = next(self.levels)
        if self.segment and self.segment.levels:
            self.sized.append(border.step)
        self.changes.append((border.step, self.value))


class Clock(Record):
    """Batch and sequence length by step, and the conversion of positions into steps.

    Attributes:
        levels: the first steps of the levels of the batch whose size the spec sets.
    """

    steps: int
    tokens: int
    lengths: list[tuple[int, int, int]]
    batches: list[BatchPiece]
    roundings: list[Rounding]
    starts: list[tuple[int, int, int]]
    borders: dict[Position, Border]
    batch_at_end: Quantity
    begins: dict[str, list[int]] = field(default_factory=dict)
    levels: tuple[int, ...] = ()

    def tokens_before(self, step: int) -> int:
        """Tokens before `step`."""
        for start, tokens, pace in reversed(self.starts):
            if start <= step:
                return tokens + (step - start) * pace
        return 0

    def border(self, position: Position) -> Border:
        """The step boundary nearest to any position.

        If the batch or the sequence length changes at that very position, it is the boundary of
        that change: what is requested at the same place happens at the same step.
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
    walk = _Walk(length, seq_len, batch, granule, report)
    while walk.end is None:
        if not walk.advance():
            return None
    walk.check_ends(walk.end, where)
    return walk.clock(walk.end)


class _Walk:
    """The walk through a stage, by stretches of constant batch and sequence length.

    Attributes:
        here: where the current stretch begins.
        pace: tokens per step in it.
        end: the stage's end; None: not reached yet.
    """

    def __init__(
        self,
        length: Length,
        seq_len: list[Segment],
        batch: list[Segment],
        granule: int,
        report: Report,
    ) -> None:
        self.length = length
        self.report = report
        sizes = tuple(segment.end for segment in seq_len)
        self.lengths = _Knob("seq_len", seq_len, length)
        self.batches = _Knob("batch", batch, length, granule, sizes)
        self.lengths.next_segment(START, 0, report)
        self.batches.next_segment(START, self.lengths.value, report)
        self.here = START
        self.pace = 0
        self.end: Border | None = None
        self.starts: list[tuple[int, int, int]] = []
        self.pieces: list[tuple[int, int]] = []
        self.roundings: list[Rounding] = []
        self.borders: dict[Position, Border] = {}

    @property
    def knobs(self) -> tuple[_Knob, _Knob]:
        return self.lengths, self.batches

    def advance(self) -> bool:
        """Moves to the next stretch, or to the end of the stage; False after reporting."""
        sequences = _sequences(self.batches, self.lengths.value, self.report)
        if sequences is None:
            return False
        self.pace = sequences * self.lengths.value
        self.starts.append((self.here.step, self.here.tokens, self.pace))
        self.pieces.append((self.here.step, sequences))
        wish = Position(self.length.unit, self.length.value)
        end = self._step_of(wish, self.here.step + 1)
        ends = {k.what: self._step_of(k.end, k.begin.step + 1) for k in self.knobs if k.end}
        moves = {k.what: self._step_of(k.change, self.here.step) for k in self.knobs if k.change}
        coming = min([*ends.values(), *moves.values()], default=end)
        if coming >= end:
            while self.batches.change and self._step_of(self.batches.change, 0) <= end:
                self.batches.next_level(self.here)
            self.end = self._border(end)
            note_rounding("the end of the stage", wish, end, self.end.tokens, self.roundings)
            return True
        self.here = self._border(coming)
        for knob in self.knobs:
            if ends.get(knob.what) == coming:
                if not self._next_segment(knob):
                    return False
            elif moves.get(knob.what) == coming:
                knob.next_level(self.here)
        return True

    def _step_of(self, position: Position, least: int) -> int:
        """The step boundary nearest to a position, at the current pace."""
        if position.unit == "steps":
            return max(nearest(position.value), least)
        return max(self.here.step + nearest((position.value - self.here.tokens) / self.pace), least)

    def _border(self, step: int) -> Border:
        """A later step boundary, at the current pace."""
        tokens = self.here.tokens + (step - self.here.step) * self.pace
        return Border(step, tokens, Fraction(step), Fraction(tokens))

    def _next_segment(self, knob: _Knob) -> bool:
        """Moves from a knob's segment that ends here to its next; False after reporting."""
        wish, here = knob.end, self.here
        assert wish
        note_rounding(
            f"the end of a segment of {knob.what}", wish, here.step, here.tokens, self.roundings
        )
        begin = self.borders[wish] = replace(here, **{f"wish_{wish.unit}": wish.value})
        while knob.change and self._step_of(knob.change, 0) <= here.step:
            knob.next_level(here)
        if knob.next_segment(begin, self.lengths.value, self.report):
            return True
        self.report.add(
            "E447",
            f"{knob.what} has no value after step {here.step:,}: the stage continues",
            knob.segment and knob.segment.span,
            help=_UNBOUND,
        )
        return False

    def check_ends(self, end: Border, where: Span | None) -> None:
        """Reports segments that the stage does not reach, and a last one that ends after it."""
        for knob in self.knobs:
            unreached = next(knob.segments, None)
            assert knob.segment
            if not unreached:
                last = self._step_of(knob.end, 0) if knob.end else end.step
                overrun(knob.what, knob.segment, last, end.step, self.report)
                continue
            hint = crowded(knob.segment, knob.begin.wish(self.length.unit), self.length)
            self.report.add(
                "E441",
                f"this segment of {knob.what}{turn(unreached)} can never be reached: the stage "
                f"ends before it, after {short(end.tokens)} tokens",
                unreached.span or where,
                help=f"{_LONGER}{hint}",
            )

    def clock(self, end: Border) -> Clock:
        """The clock of the finished walk."""
        stops = [*(step for step, _ in self.lengths.changes[1:]), end.step]
        return Clock(
            steps=end.step,
            tokens=end.tokens,
            lengths=[
                (start, stop, value)
                for (start, value), stop in zip(self.lengths.changes, stops, strict=True)
            ],
            batches=_merge(self.pieces, end.step),
            roundings=self.roundings,
            starts=self.starts,
            borders=self.borders,
            begins={knob.what: knob.begins for knob in self.knobs},
            batch_at_end=self.batches.value,
            levels=tuple(self.batches.sized),
        )


def borders(
    segments: Sequence[Segment], length: Length, clock: Clock, knob: str, report: Report
) -> list[tuple[Segment, Border, Border]]:
    """Each segment of a knob with its beginning and its end; reports unreachable ones."""
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
                f"this segment of {knob}{turn(segment)} can never be reached: the stage ends after "
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
            help=_UNBOUND,
        )
    overrun(knob, segments[-1], begin.step, clock.steps, report)
    return result


def note_rounding(
    what: str, wish: Position, step: int, tokens: int, roundings: list[Rounding]
) -> None:
    """Adds to `roundings` a boundary requested in tokens that had to move."""
    if wish.unit == "tokens" and wish.value != tokens:
        roundings.append(
            Rounding(what=what, wished_tokens=plain(wish.value), step=step, tokens=tokens)
        )


def _merge(pieces: list[tuple[int, int]], end: int) -> list[BatchPiece]:
    merged: list[BatchPiece] = []
    for (start, sequences), stop in zip(pieces, [s for s, _ in pieces[1:]] + [end], strict=True):
        if stop == start:  # a ramp's level that ends within a step
            continue
        if merged and merged[-1].sequences == sequences:
            merged[-1] = replace(merged[-1], to_step=stop)
        else:
            merged.append(BatchPiece(from_step=start, to_step=stop, sequences=sequences))
    return merged


def _reached(segment: Segment, start: Quantity, seq_len: int, report: Report) -> bool:
    """Whether levels of a size lead from the beginning of a ramp to its end; reports if not."""
    levels, end = segment.levels, segment.end
    assert levels
    first = _in_unit(start, end.unit, seq_len)
    way = abs(end.value - first)
    if levels.unit == end.unit and way and way % levels.value == 0:
        return True
    if levels.unit != end.unit:
        message = f"the ramp is in {end.unit}, but its levels are in {levels.unit}"
        help = f"write both in {end.unit}"
    else:
        near = max(round(way / levels.value), 1)
        fit = (n for n in range(near, near + MAX_LEVELS) if (way / n).denominator == 1)
        count = next(fit, 1)
        message = (
            f"levels of {levels} do not lead from {plain(first)} to {plain(end.value)} {end.unit}"
        )
        help = f"the nearest that do are `in levels of {plain(way / count)} {levels.unit}`"
    report.add("E465", message, segment.span, help=help)
    return False


def _in_unit(batch: Quantity, unit: str, seq_len: int) -> Fraction:
    """A batch in tokens or in sequences of this length."""
    if batch.unit == unit:
        return batch.value
    return batch.value * seq_len if unit == "tokens" else batch.value / seq_len


def _levels(
    knob: _Knob, segment: Segment, start: Quantity, seq_len: int
) -> Iterator[tuple[Quantity, Position | None]]:
    """A ramp of the batch as levels, each with the position where the next one begins.

    Levels are `granule` sequences apart (of the longest length in use if the batch is in tokens)
    and never above the ramp's curve; the end is reached exactly, where the curve reaches it.
    """
    unit = segment.end.unit
    first = _in_unit(start, unit, seq_len)
    size = Fraction(knob.granule * (lcm(*knob.lengths) if unit == "tokens" else 1))
    if segment.levels:
        size = segment.levels.value
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
        share = Fraction(curves.CURVES[segment.shape].inverse((level + 1) / count))
        position = begin.wish(over.unit) + over.value * share.limit_denominator(10**9)
        value = first + level * stride * size * (1 if way > 0 else -1)
        yield Quantity(value, unit), Position(over.unit, position)
    yield segment.end, None


def _sequences(knob: _Knob, seq_len: int, report: Report) -> int | None:
    """The current batch in sequences of `seq_len` tokens."""
    batch: Quantity = knob.value
    sequences = batch.value / seq_len if batch.unit == "tokens" else batch.value
    if sequences.denominator == 1 and sequences > 0:
        return int(sequences)
    low = max(int(sequences), 1)
    near = (f"{plain(Fraction(n * seq_len))} ({counted(n, 'sequences')})" for n in (low, low + 1))
    report.add(
        "E442",
        f"a batch of {plain(batch.value)} tokens is not a whole number of sequences of {seq_len}",
        knob.segment and knob.segment.span,
        help=f"the nearest are {' and '.join(near)}",
    )
    return None
