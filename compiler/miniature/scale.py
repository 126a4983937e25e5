"""The numbers of a miniature: lengths, batches, learning rates and steps, with their order kept.

All numbers of one kind go through one strictly increasing map for the whole recipe: what is longer
stays longer, what is equal stays equal, and no two changes of a schedule coincide.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from math import gcd, lcm
from typing import Any

from ...spec.quantity import Quantity
from ...spec.record import Record
from ...spec.schema.training_blocks import Training
from ...spec.source import Span
from ..program import Scheduled, ScheduledStage
from ..stages import KINDS
from ..stages.kind import TrainingKind

SHORTEST = 64
LONGEST = 2048
"""Lengths are from SHORTEST to LONGEST, as far as their order permits."""
ROW = 512
"""The fewest tokens of a row of dialogs or preferences, so that stand-ins and drafts fit."""
STEP_TOKENS = (2048, 8192)
"""Target tokens of the smallest and of the largest batch."""
MOST_SEQUENCES = 32
STRETCH = 3
"""The fewest steps between two changes."""
GROUP = 4
"""The most answers to a prompt in a group."""
FRESH = 64
"""Steps of a stage from random weights, for a model that writes words and ends its answers."""
PEAKS = {spec.kind: kind.peak for spec, kind in KINDS.items() if isinstance(kind, TrainingKind)}
"""Kind of training stage → its highest learning rate."""

UNKNOWN = 8192
"""What stands for the length of a recipe that trains nothing, to which its models are scaled."""
_LADDER = [SHORTEST * k // 2 * 2**n for n in range(6) for k in (2, 3)] + [4096]


class Unscalable(Exception):
    """A recipe has no miniature; with the reason and the place in the spec."""

    def __init__(self, message: str, span: Span | None, help: str = "") -> None:
        super().__init__(message)
        self.message, self.span, self.help = message, span, help


class Scale(Record):
    """The maps from a recipe to its miniature.

    Attributes:
        lengths: tokens of a sequence → tokens of a sequence.
        batches: unit (`tokens`, `seqs`, `pairs` or `answers`) and value → value.
        rates: kind of stage → the factor of its learning rates.
    """

    lengths: dict[int, int]
    batches: dict[tuple[str, Fraction], Fraction]
    rates: dict[str, Fraction]

    def batch(self, value: Quantity, spec: Training) -> Quantity:
        """The miniature of a batch of a stage."""
        return Quantity(self.batches[_unit(value, spec), value.value], value.unit)


def scale(program: Scheduled) -> Scale:
    """The maps of a scheduled program.

    Raises: Unscalable.
    """
    trained = [stage for stage in program.stages.values() if isinstance(stage, ScheduledStage)]
    lengths = _lengths(program, trained)
    return Scale(lengths=lengths, batches=_batches(trained, lengths), rates=_rates(trained))


def _lengths(program: Scheduled, trained: list[ScheduledStage]) -> dict[int, int]:
    used = {length for stage in trained for _, _, length in stage.lengths}
    for stage in program.stages.values():
        spec: Any = stage.spec
        if not isinstance(stage, ScheduledStage) and getattr(spec, "seq_len", None):
            used.add(spec.seq_len)
        needle = getattr(spec, "needle", None) or getattr(
            getattr(spec, "gate", None), "needle", None
        )
        used.update(needle.lengths or [] if needle else [])
    ordered = sorted(used or {UNKNOWN})
    rows = [stage.lengths[0][2] for stage in trained if stage.spec.data_kind != "documents"]
    row = ordered.index(min(rows)) if rows else 0
    least = ROW if rows else SHORTEST

    ratios = [Fraction(length, ordered[0]) for length in ordered]
    exact = all(each.denominator == 1 and each.numerator.bit_count() == 1 for each in ratios)
    for base in (SHORTEST * 2**n for n in range(4)):
        for steps in (
            [int(each) for each in ratios] if exact else [],
            [2**place for place in range(len(ordered))],
        ):
            found = [base * step for step in steps]
            if found and found[-1] <= LONGEST and found[row] >= least:
                return dict(zip(ordered, found, strict=True))
    first = max(_LADDER.index(least), row)
    if first + len(ordered) - row > len(_LADDER):
        stage = trained[0]
        raise Unscalable(
            f"the recipe has {len(ordered)} sequence lengths, more than a miniature can have",
            stage.spec.at("seq_len"),
            f"it has at most {len(_LADDER)}, from {_LADDER[0]} to {_LADDER[-1]} tokens",
        )
    found = _LADDER[first - row : first - row + len(ordered)]
    return dict(zip(ordered, found, strict=True))


def _batches(
    trained: list[ScheduledStage], lengths: Mapping[int, int]
) -> dict[tuple[str, Fraction], Fraction]:
    """Maps batches; one in tokens stays a whole number of sequences at every length it may meet."""
    in_tokens = [stage for stage in trained if _in_tokens(stage)]
    whole = lcm(*(lengths[length] for stage in in_tokens for _, _, length in stage.lengths))
    used: dict[str, dict[Fraction, int]] = {}
    for stage in trained:
        longest = max(lengths[length] for _, _, length in stage.lengths)
        for value in _written(stage):
            unit = _unit(value, stage.spec)
            each = whole if unit == "tokens" else longest * min(stage.spec.each, GROUP)
            sizes = used.setdefault(unit, {})
            sizes[value.value] = max(sizes.get(value.value, 0), each)
    found = {}
    for unit, sizes in used.items():
        times = whole if unit == "tokens" else 1
        for value, sequences in _spread(dict(sorted(sizes.items()))).items():
            found[unit, value] = Fraction(sequences * times)
    return found


def _unit(value: Quantity, spec: Training) -> str:
    """What a batch counts."""
    return spec.counts if spec.padded else value.unit


def _in_tokens(stage: ScheduledStage) -> bool:
    """Whether any batch of a stage is given in tokens, here or in the previous stage."""
    return "tokens" in {stage.end.batch.unit, *(value.unit for value in _written(stage))}


def _written(stage: ScheduledStage) -> Iterator[Quantity]:
    for segment in stage.spec.batch.segments if stage.spec.batch else ():
        for value in (segment.start, segment.end):
            if isinstance(value, Quantity):
                yield value


def _spread(sizes: Mapping[Fraction, int]) -> dict[Fraction, int]:
    """Small numbers in the order of the values, and in their ratio if possible.

    Args:
        sizes: values, ascending → tokens per unit of the small number.
    """
    if not sizes:
        return {}
    values = list(sizes)
    least, most = STEP_TOKENS
    common = Fraction(gcd(*(v.numerator for v in values)), lcm(*(v.denominator for v in values)))
    exact = [int(value / common) for value in values]

    def fits(numbers: Iterable[int]) -> bool:
        return all(n * each <= most for n, each in zip(numbers, sizes.values(), strict=True))

    times = min(max(-(-least // (sizes[values[0]] * exact[0])), 1), MOST_SEQUENCES)
    while times and not fits(n * times for n in exact):
        times -= 1
    if times:
        return dict(zip(values, (n * times for n in exact), strict=True))
    top = MOST_SEQUENCES
    while True:
        numbers: list[int] = []
        for value in values:
            numbers.append(max(int(top * value / values[-1]), numbers[-1] + 1 if numbers else 1))
        if fits(numbers) or top <= len(values):
            return dict(zip(values, numbers, strict=True))
        top //= 2


def _rates(trained: list[ScheduledStage]) -> dict[str, Fraction]:
    peaks: dict[str, Fraction] = {}
    for stage in trained:
        for segment in stage.spec.lr.segments if stage.spec.lr else ():
            for value in (segment.start, segment.end):
                if isinstance(value, Fraction):
                    kind = stage.spec.kind
                    peaks[kind] = max(peaks.get(kind, Fraction(0)), value)
    return {kind: PEAKS[kind] / peak if peak else Fraction(1) for kind, peak in peaks.items()}


class Steps(Record):
    """The steps at which something changes in a stage → those of the miniature."""

    at: dict[int, int]

    def of(self, begin: int, end: int) -> int:
        """Miniature steps between two of them."""
        return self.at[end] - self.at[begin]


def steps(stage: ScheduledStage, target: int) -> Steps:
    """The map of a stage's steps: every stretch between two changes gets at least `STRETCH`, or
    all that it had, and the rest of `target` is divided among the stretches by length.
    """
    target = max(target, FRESH) if stage.spec.model else target
    marks = {0, stage.steps, *(step for step, _ in stage.checkpoints.values())}
    marks.update(step for begins in stage.begins.values() for step in begins)
    marks.add(averaged_from(stage))
    ordered = sorted(mark for mark in marks if 0 <= mark <= stage.steps)
    full = [end - begin for begin, end in pairwise(ordered)]
    least = [min(STRETCH, size) for size in full]
    spare = max(min(target, stage.steps) - sum(least), 0)
    more = [size - base for size, base in zip(full, least, strict=True)]
    total = sum(more)
    found = {0: 0}
    position, past = 0, 0
    for mark, base, rest in zip(ordered[1:], least, more, strict=True):
        position, past = position + base, past + rest
        found[mark] = position + (spare * past // total if total else 0)
    return Steps(at=found)


def averaged_from(stage: ScheduledStage) -> int:
    """The step from which a stage's weights are averaged; 0 if they are not."""
    polyak = stage.spec.average
    if polyak is None or polyak.over is None:
        return 0
    over = polyak.over
    length = over.value
    if over.unit == "%":
        length = stage.steps * over.value
    elif over.unit == "tokens":
        length = over.value / Fraction(stage.tokens, stage.steps)
    return min(max(stage.steps - round(length), 0), stage.steps - 1)
