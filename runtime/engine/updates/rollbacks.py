"""Rollbacks: training goes back to a checkpoint before a spike, and reads later data from there.

PaLM did so by hand (arXiv:2204.02311, §5.1): data seen before and during a spike are passed over,
since a spike comes of certain data at a certain state of the model. Steps, tokens, rates and
mixture stay as planned; each source is read on from where it was.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ....compiler.schedule.timeline import Timeline

if TYPE_CHECKING:
    from .spikes import Spike


class Rollback(NamedTuple):
    """One time that a job went back; steps are the stage's.

    Attributes:
        number: of the job's rollbacks, from 1.
        step: the one with the spike.
        to: the step from which training went on.
    """

    number: int
    step: int
    to: int

    @classmethod
    def of(cls, detail: Mapping[str, Any]) -> "Rollback":
        """The rollback that a line of the journal tells of."""
        return cls(*(detail[name] for name in cls._fields))


class RollBack(Exception):
    """Leaves the training loop at a spike, on all ranks."""

    def __init__(self, rollback: Rollback, spike: "Spike") -> None:
        super().__init__(rollback)
        self.rollback = rollback
        self.spike = spike


class PassedOver:
    """The sequences of each source that a job passes over, by step.

    They follow from the rollbacks alone, so a run that is resumed, or a job that is made again from
    its beginning, reads the same data at every step.

    Args:
        rollbacks: of the job, in order.
    """

    def __init__(
        self, timeline: Timeline | None = None, rollbacks: Sequence[Rollback] = ()
    ) -> None:
        self._from: list[int] = []
        self._more: list[dict[str, int]] = []
        for _, at, to in rollbacks:
            assert timeline is not None
            begin, end = timeline.drawn_before(to), timeline.drawn_before(at + 1)
            before = self.before(at)
            more = {
                source: before.get(source, 0) + drawn - begin.get(source, 0)
                for source, drawn in end.items()
            }
            # What an earlier rollback passed over later is read at these steps no more.
            keep = sum(step < to for step in self._from)
            self._from = [*self._from[:keep], to]
            self._more = [*self._more[:keep], more]

    def before(self, step: int) -> Mapping[str, int]:
        """Source → the sequences passed over before those of a step."""
        place = bisect_right(self._from, step)
        return self._more[place - 1] if place else {}
