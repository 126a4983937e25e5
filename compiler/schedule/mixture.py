"""The source of each sequence of a mixture: exact, periodic, and with random access.

A mixture is a list of stretches with constant integer weights. The ideal number of sequences of a
source grows with its share; the k-th sequence of a source may be drawn once the ideal exceeds k,
and must be drawn before it reaches k + 1. Among the sources that may be drawn, the one with the
earliest deadline is. One sequence is drawn at a time and the windows have integer bounds, so this
rule misses no deadline (earliest deadline first, unit jobs; the windows are those of Baruah, Cohen,
Plaxton, Varvel: Proportionate progress, Algorithmica 15, 1996): at any point, the sequences drawn
from a source differ from its ideal share by less than one.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from heapq import heappop, heappush
from math import gcd, inf, lcm

from ...spec.record import Record
from ...spec.schedule import Shape
from ..curves import CURVES

RESOLUTION = 100_000
"""Shares with a larger common denominator are rounded to 1/RESOLUTION."""


def between(
    shape: Shape, start: Mapping[str, Fraction], end: Mapping[str, Fraction], u: float
) -> dict[str, Fraction]:
    """The shares of a ramp from one mixture to another, after the share `u` of its length."""
    y = Fraction(CURVES[shape].progress(u)).limit_denominator(10**6)
    return {
        name: start.get(name, Fraction(0)) * (1 - y) + end.get(name, Fraction(0)) * y
        for name in dict.fromkeys([*start, *end])
    }


def integer_weights(shares: Mapping[str, Fraction], resolution: int = RESOLUTION) -> dict[str, int]:
    """The shares as the smallest integers in the same proportion, sources in the given order.

    If their common denominator is above `resolution`, the shares are rounded to 1/`resolution` by
    largest remainder, so that they still add up exactly.
    """
    return dict(_integer_weights(tuple(shares.items()), resolution))


@lru_cache(maxsize=4096)
def _integer_weights(given: tuple[tuple[str, Fraction], ...], resolution: int) -> dict[str, int]:
    """As above; cached, because the same mixtures return in every stage and after every edit."""
    shares = dict(given)
    total = sum(shares.values(), Fraction(0))
    if total <= 0:
        raise ValueError("the weights of a mixture must add up to more than zero")
    exact = {name: share / total for name, share in shares.items()}
    denominator = min(lcm(*(share.denominator for share in exact.values())), resolution)
    weights = {name: int(share * denominator) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: weights[name] - exact[name] * denominator)
    for name in by_remainder[: denominator - sum(weights.values())]:
        weights[name] += 1
    divisor = gcd(*weights.values())
    return {name: weight // divisor for name, weight in weights.items()}


class Run(Record, kw_only=False):
    """Sequences from `start`: `order` (indices of sources) repeated `repeats` times."""

    start: int
    order: list[int]
    repeats: int
    ordinals: list[int]
    per_cycle: list[int]
    before: list[int]


class Mixture:
    """The order of sequences over consecutive stretches of constant weights.

    Args:
        stretches: (integer weight of each source, number of sequences), in order.
    """

    def __init__(self, stretches: Sequence[tuple[Mapping[str, int], int]]) -> None:
        self.stretches = [(dict(weights), count) for weights, count in stretches]
        # By name: the order must not depend on how a plan was serialized.
        self.sources = sorted({name for weights, _ in stretches for name in weights})
        periods = [sum(weights.values()) for weights, _ in self.stretches]
        self._scale = lcm(*periods)
        self._starts = [0]
        self._rates: list[list[int]] = []
        self._ideal = [[0] * len(self.sources)]
        for (weights, count), period in zip(self.stretches, periods, strict=True):
            rates = [weights.get(name, 0) * (self._scale // period) for name in self.sources]
            self._rates.append(rates)
            self._starts.append(self._starts[-1] + count)
            ideal = [u + rate * count for u, rate in zip(self._ideal[-1], rates, strict=True)]
            self._ideal.append(ideal)
        self._drawn = [0] * len(self.sources)
        self._runs: list[Run] = []
        for place, period in enumerate(periods):
            self._schedule(place, period)
        self._run_starts = [run.start for run in self._runs]

    @property
    def sequences(self) -> int:
        return self._starts[-1]

    def _opens(self, source: int, k: int, place: int) -> float:
        """The first slot in which the k-th sequence of a source may be drawn; stretches before
        `place` are in the past."""
        free = k * self._scale
        for later in range(place, len(self._rates)):
            if self._ideal[later][source] > free:
                return self._starts[later]
            if self._ideal[later + 1][source] > free:
                ahead = free - self._ideal[later][source]
                return self._starts[later] + ahead // self._rates[later][source]
        return inf

    def _closes(self, source: int, k: int, place: int) -> float:
        """The slot before which it must be drawn; stretches before `place` are in the past."""
        due = (k + 1) * self._scale
        for later in range(place, len(self._rates)):
            if self._ideal[later + 1][source] >= due:
                ahead = due - self._ideal[later][source]
                return self._starts[later] - (-ahead // self._rates[later][source])
        return inf

    def _schedule(self, place: int, period: int) -> None:
        """Appends the runs of one stretch: a head until the state recurs, the cycle, a tail.

        The tail of two periods is drawn one by one, since its deadlines may be in the next stretch.
        """
        slot, end = self._starts[place], self._starts[place + 1]
        borders: dict[tuple[int, ...], int] = {}
        history: list[list[int]] = []
        while end - slot >= 4 * period:
            lag = tuple(
                self._ideal[place][source]
                + (slot - self._starts[place]) * self._rates[place][source]
                - self._drawn[source] * self._scale
                for source in range(len(self.sources))
            )
            if lag in borders:
                cycle = [source for part in history[borders[lag] :] for source in part]
                repeats = (end - slot - 2 * period) // len(cycle)
                if repeats:
                    self._append(slot, cycle, repeats)
                    slot += repeats * len(cycle)
                break
            borders[lag] = len(history)
            history.append(self._draw(place, slot, period))
            self._append(slot, history[-1], 1)
            slot += period
        if end > slot:
            self._append(slot, self._draw(place, slot, end - slot), 1)

    def _draw(self, place: int, slot: int, count: int) -> list[int]:
        """`count` sequences from `slot`, one by one; `_drawn` holds the numbers drawn before."""
        waiting: list[tuple[float, int, int]] = []
        ready: list[tuple[float, int, int]] = []
        for source, drawn in enumerate(self._drawn):
            heappush(waiting, (self._opens(source, drawn, place), source, drawn))
        order: list[int] = []
        for now in range(slot, slot + count):
            while waiting and waiting[0][0] <= now:
                _, source, k = heappop(waiting)
                heappush(ready, (self._closes(source, k, place), source, k))
            _, source, k = heappop(ready)
            order.append(source)
            heappush(waiting, (self._opens(source, k + 1, place), source, k + 1))
        return order

    def _append(self, slot: int, order: list[int], repeats: int) -> None:
        seen = [0] * len(self.sources)
        ordinals = []
        for source in order:
            ordinals.append(seen[source])
            seen[source] += 1
        self._runs.append(Run(slot, order, repeats, ordinals, seen, list(self._drawn)))
        self._drawn = [
            drawn + repeats * count for drawn, count in zip(self._drawn, seen, strict=True)
        ]

    def locate(self, index: int) -> tuple[str, int]:
        """The source of the `index`-th sequence, and its ordinal among that source's sequences
        (both from zero)."""
        run = self._runs[bisect_right(self._run_starts, index) - 1]
        cycles, place = divmod(index - run.start, len(run.order))
        source = run.order[place]
        ordinal = run.before[source] + cycles * run.per_cycle[source] + run.ordinals[place]
        return self.sources[source], ordinal

    def counts(self, sequences: int) -> dict[str, int]:
        """How many of the first `sequences` sequences come from each source."""
        if not self._runs:
            return {}
        run = self._runs[max(bisect_right(self._run_starts, sequences) - 1, 0)]
        cycles, place = divmod(sequences - run.start, len(run.order))
        head = Counter(run.order[:place])
        return {
            name: run.before[source] + cycles * run.per_cycle[source] + head[source]
            for source, name in enumerate(self.sources)
        }
