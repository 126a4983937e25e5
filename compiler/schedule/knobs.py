"""All attributes of a stage by step, which determine what `last` means for later stages."""

from collections.abc import Callable
from fractions import Fraction

from ...spec.quantity import Quantity
from ...spec.record import Record
from ..program import MixturePart, State
from ..values import LrPiece
from .clock import Clock
from .course import at


class Knobs(Record):
    """Every knob of a stage, by step.

    Attributes:
        settings: those in force after so many steps.
        shares: of the mixture at the stage's end, before rounding to weights.
        thetas, places: steps, and the RoPE base and the degrees of parallelism from there on.
    """

    clock: Clock
    lr: list[LrPiece]
    settings: Callable[[int], dict[str, float | None]]
    mixture: list[MixturePart]
    shares: dict[str, Fraction]
    thetas: list[tuple[int, float]]
    places: list[tuple[int, dict[str, int]]]

    def at_end(self) -> State:
        """The values in force at the end of the stage."""
        clock = self.clock
        return State(
            lr=self.lr[-1].rate(clock.steps, clock.tokens_before),
            batch=clock.batch_at_end,
            seq_len=clock.lengths[-1][2],
            data=self.shares,
            rope_theta=float(self.thetas[-1][1]),
            parallel=dict(self.places[-1][1]),
            settings=self.settings(clock.steps),
        )

    def after(self, steps: int) -> State:
        """The values in force after `steps` steps of the stage, at least 1, before its end."""
        clock, last = self.clock, steps - 1
        seq_len = at([(start, seq_len) for start, _, seq_len in clock.lengths], last)
        batch = at([(b.from_step, b.sequences) for b in clock.batches], last)
        unit = clock.batch_at_end.unit
        piece = next(p for p in reversed(self.lr) if p.from_step <= last)
        weights = at([(m.from_step, m.weights) for m in self.mixture], last)
        return State(
            lr=piece.rate(steps, clock.tokens_before),
            batch=Quantity(Fraction(batch * seq_len if unit == "tokens" else batch), unit),
            seq_len=seq_len,
            data=self.shares
            if weights == self.mixture[-1].weights
            else {n: Fraction(w, sum(weights.values())) for n, w in weights.items()},
            rope_theta=float(at(self.thetas, last)),
            parallel=dict(at(self.places, last)),
            settings=self.settings(steps),
        )
