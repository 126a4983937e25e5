"""A job to do, and what an implementation of a kind of job consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.plan.plan import Plan, TrainJob
from ..peers import SINGLE, Peers
from ..preparation.repetition import by_stage
from ..run_folder.recorder import OnEvent, Recorder
from ..run_folder.store import Store

TO_LABEL = "to_label"
"""The folder of a run with candidates for people to label."""


@dataclass(frozen=True)
class Run:
    """What the jobs of a run share.

    Attributes:
        root: the spec's folder, which relative data paths start from.
        recorder: of figures over time; only rank 0 has one.
        peers: the ranks that do a job together.
        told: (stage, source) pairs whose repetition has been reported.
    """

    plan: Plan
    store: Store
    root: Path
    emit: OnEvent
    recorder: Recorder | None
    peers: Peers = SINGLE
    told: set[tuple[str, str]] = field(default_factory=set)

    @property
    def labels(self) -> Path:
        """The folder with candidates for people to label."""
        return self.store.folder / TO_LABEL

    @cached_property
    def trained(self) -> dict[str, list[TrainJob]]:
        """Stage → the jobs that always train it."""
        return by_stage(self.plan)


@dataclass(frozen=True)
class Task:
    """A job to do.

    Attributes:
        key: key of its artifact.
        inputs: role → folder of the result that the job reads.
        work: the job's own folder, in which it makes the folder `result`.
        known: what rank 0 has read for all ranks (`Work.known`).
    """

    job: Any
    key: str
    inputs: Mapping[str, Path]
    work: Path
    run: Run
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.run.recorder is not None


def _nothing(task: Task) -> None:
    """Does nothing."""


def _nothing_known(task: Task) -> dict[str, Any]:
    """Nothing: rank 0 has nothing to read for the others."""
    return {}


class Work(NamedTuple):
    """The implementation of a kind of job.

    Attributes:
        do: makes the result, on rank 0 alone or on all ranks of the job's mesh (`phases.ranks_of`),
            of which only rank 0 writes.
        prepares: whether it makes data and needs no model.
        outside: digests of what the result depends on besides the plan, from the job and the
            folders of its inputs; None if it depends on nothing else.
        known: what rank 0 reads for all ranks, so that they need not look themselves; can be
            written as JSON.
        before, after: what rank 0 does before all ranks begin, and once they have ended.
        kept: what rank 0 does if the result exists; its folder is given as `work`.
    """

    do: Callable[[Task], None]
    prepares: bool = False
    outside: Callable[[Any, Mapping[str, Path], Run], list[str]] | None = None
    known: Callable[[Task], dict[str, Any]] = _nothing_known
    before: Callable[[Task], None] = _nothing
    after: Callable[[Task], None] = _nothing
    kept: Callable[[Task], None] = _nothing
