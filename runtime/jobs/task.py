"""A job to do, and what implementing a kind of job consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.plan.plan import Plan, TrainJob
from ..preparation.repetition import by_stage
from ..run_folder.recorder import OnEvent, Recorder
from ..run_folder.store import Store

TO_LABEL = "to_label"
"""The folder of a run in which candidates for people to label are written."""


@dataclass(frozen=True)
class Run:
    """What the jobs of a run share.

    Attributes:
        root: the folder of the spec, where relative paths of data start.
        recorder: of figures over time; rank 0 alone has one.
        told: stage and source of what has been said of repeated data.
    """

    plan: Plan
    store: Store
    root: Path
    emit: OnEvent
    recorder: Recorder | None
    told: set[tuple[str, str]] = field(default_factory=set)

    @property
    def labels(self) -> Path:
        """The folder for what people are to label."""
        return self.store.folder / TO_LABEL

    @cached_property
    def trained(self) -> dict[str, list[TrainJob]]:
        """Stage → the jobs that train it in any case."""
        return by_stage(self.plan)


@dataclass(frozen=True)
class Task:
    """A job that is to be done.

    Attributes:
        key: of its artifact.
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
        """Whether this is rank 0, which writes and tells."""
        return self.run.recorder is not None


def _nothing(task: Task) -> None:
    """There is nothing to do."""


def _nothing_known(task: Task) -> dict[str, Any]:
    """There is nothing that rank 0 has to read."""
    return {}


class Work(NamedTuple):
    """What is done for a kind of job.

    Attributes:
        do: makes the result; rank 0 alone does that, or all ranks of the job's mesh
            (`phases.ranks_of`), of which rank 0 alone writes.
        prepares: whether it makes data, and needs no model.
        outside: digests of what the result depends on and the plan does not know, from the job and
            the folders of its inputs; None: there is no such thing.
        known: what rank 0 reads for all ranks, which do not look for themselves; it has a form in
            JSON.
        before, after: what rank 0 does before all ranks begin, and once they have ended.
        kept: what rank 0 does where the result is there, with the folder of the result as `work`.
    """

    do: Callable[[Task], None]
    prepares: bool = False
    outside: Callable[[Any, Mapping[str, Path], Run], list[str]] | None = None
    known: Callable[[Task], dict[str, Any]] = _nothing_known
    before: Callable[[Task], None] = _nothing
    after: Callable[[Task], None] = _nothing
    kept: Callable[[Task], None] = _nothing
