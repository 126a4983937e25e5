"""A train job's schedules, looked up by step: the runtime follows them and the log must match."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from ..plan.plan import Schedule, TrainJob
from .mixture import Mixture


@dataclass(frozen=True)
class Timeline:
    """The schedules of one train job. Steps are the stage's, from `first_step`, half open."""

    schedule: Schedule
    first_step: int
    first_token: int
    seq_len: int

    @classmethod
    def of(cls, job: TrainJob) -> "Timeline":
        return cls(job.schedule, job.first_step, job.first_token, job.seq_len)

    @cached_property
    def _batch_starts(self) -> list[int]:
        return [piece.from_step for piece in self.schedule.batch]

    @cached_property
    def _sequences_before_piece(self) -> list[int]:
        before, total = [], 0
        for piece in self.schedule.batch:
            before.append(total)
            total += (piece.to_step - piece.from_step) * piece.sequences
        return before

    def batch(self, step: int) -> int:
        """Sequences in the global batch of `step`."""
        return self.schedule.batch[bisect_right(self._batch_starts, step) - 1].sequences

    def sequences_before(self, step: int) -> int:
        """Sequences that the job has consumed before `step`: its batch's first global index."""
        place = bisect_right(self._batch_starts, step) - 1
        piece = self.schedule.batch[place]
        return self._sequences_before_piece[place] + (step - piece.from_step) * piece.sequences

    def tokens_before(self, step: int) -> int:
        """Tokens that the stage has consumed before `step`."""
        return self.first_token + self.sequences_before(step) * self.seq_len

    def lr(self, step: int) -> float:
        """The learning rate of `step`: its curve's value at the beginning of the step."""
        starts = self._lr_starts
        piece = self.schedule.lr[max(bisect_right(starts, step) - 1, 0)]
        return piece.rate(step, self.tokens_before)

    def settings(self, step: int) -> dict[str, float]:
        """The settings that change, at `step`: the values of their curves at its beginning."""
        found = {}
        for name, pieces in self.schedule.settings.items():
            piece = next((p for p in reversed(pieces) if p.from_step <= step), pieces[0])
            found[name] = piece.rate(step, self.tokens_before)
        return found

    @cached_property
    def _lr_starts(self) -> list[int]:
        return [piece.from_step for piece in self.schedule.lr]

    @cached_property
    def _mix_starts(self) -> list[int]:
        return [piece.from_step for piece in self.schedule.mixture]

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture(
            [
                (
                    piece.weights,
                    self.sequences_before(piece.to_step) - self.sequences_before(piece.from_step),
                )
                for piece in self.schedule.mixture
            ]
        )

    def mixture(self, step: int) -> dict[str, int]:
        """The integer weights in force at `step`."""
        return self.schedule.mixture[bisect_right(self._mix_starts, step) - 1].weights

    def sequence(self, step: int, index: int) -> tuple[str, int]:
        """The `index`-th sequence of the batch of `step`: its source, and its ordinal among the
        sequences that the job draws from that source.

        With the job's window, the sequence is the tokens
        [window.first_token + ordinal · seq_len, … + seq_len] of the source's stream
        (one more than seq_len, for the last label).
        """
        return self._mixture.locate(self.sequences_before(step) + index)

    def drawn_before(self, step: int) -> dict[str, int]:
        """Sequences of each source that the job has drawn before `step`."""
        return self._mixture.counts(self.sequences_before(step))
