"""Results that only the next turn of a policy reads: weights, moments and log-probabilities.

A policy that writes new answers every few steps would otherwise fill a disk with all the weights
that it ever had. A job's result is reduced to its record, its metrics, once nobody reads it: not
those that a job in the plan still lacks, nor those of the two newest turns, so that one remains if
the other is damaged.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..compiler.plan.plan import ExportJob, LikelihoodJob, Plan, TeacherJob, TrainJob
from .run_folder.recorder import KEPT
from .run_folder.store import Store

Made = tuple[Any, dict[str, str]]
"""A job, and role → key of the artifact that it reads."""


class Passing:
    """The passing results of a run.

    Attributes:
        again: keys of artifacts that are about to be made again from their records.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.store = store
        self._spent: list[str] = []
        self.again: set[str] = set()
        self._made: dict[str, Made] = {}
        self._readers: dict[str, list[str]] = {}
        for job in plan.jobs:
            for key in job.inputs.values():
                self._readers.setdefault(key, []).append(job.key)
        # A part leaves what it does not make to others.
        self._passing = set(_passing(plan)) - {job.key for job in plan.jobs if plan.aside(job)}
        self._actual: dict[str, str] = {}

    def knows(self, job: Any, key: str, inputs: dict[str, str]) -> None:
        """Takes note of the key of a job's artifact."""
        self._made[key] = job, inputs
        self._actual[job.key] = key

    def lost(self, inputs: Collection[str]) -> list[tuple[str, Made]]:
        """The artifacts that have to be made again so that a job can read `inputs`: those of which
        only the record is left, and what they are made of; in the order in which they are made."""
        wanted, found = list(inputs), set()
        while wanted:
            key = wanted.pop()
            if key in self._made and key not in found and self.store.is_spent(key):
                found.add(key)
                wanted += self._made[key][1].values()
        return [(key, made) for key, made in self._made.items() if key in found]

    def spend(self, key: str) -> None:
        """After a turn, reduces what was made for the turn before, if nobody reads it any more.

        Args:
            key: of the artifact of a job, which is whole.
        """
        if not self._passing or not isinstance(self._made[key][0], TrainJob):
            return
        inputs = set(self._made[key][1].values())
        before = {of for each in inputs if each in self._made for of in self._inputs(each)}
        for each in sorted(before - inputs):
            if self._made[each][0].key in self._passing and self._is_over(each):
                self.store.spend(each, keep=KEPT)
                self._spent.append(each)

    def take_spent(self) -> list[str]:
        """The keys of the artifacts that were reduced since this was last called."""
        found, self._spent = self._spent, []
        return found

    def _inputs(self, key: str) -> Iterator[str]:
        return (of for of in self._made[key][1].values() if of in self._made)

    def _is_over(self, key: str) -> bool:
        """Whether an artifact is whole, and all that are made of it exist."""
        readers = self._readers.get(self._made[key][0].key, ())
        keys = [self._actual.get(reader) for reader in readers]
        return not self.store.is_spent(key) and all(
            reader and reader not in self.again and self.store.artifact(reader) for reader in keys
        )


def _passing(plan: Plan) -> Iterator[str]:
    """The keys of the jobs of policies whose results only the next turn reads."""
    jobs: Mapping[str, Any] = {job.key: job for job in plan.jobs}
    weights = {
        key
        for job in plan.jobs
        if isinstance(job, TrainJob) and job.reads_rollouts
        for key in job.inputs.values()
        if isinstance(jobs.get(key), TrainJob) and jobs[key].stage == job.stage
    }
    for job in plan.jobs:
        exported = isinstance(job, ExportJob) and job.inputs["model"] in weights
        said = isinstance(job, LikelihoodJob) or (
            isinstance(job, TeacherJob) and job.form == "rollouts"
        )
        if job.key in weights or exported or said:
            yield job.key
