"""One part of preparing: the files of each data set that one of many hosts tokenizes."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..compiler.plan.part import beside
from ..compiler.plan.plan import DatasetJob, Plan, TokenizerJob
from ..compiler.values import Resources
from . import stopping
from .data.tokens import tokenizer
from .disk import disk
from .errors import RunError
from .preparation import awaited, text_units, token_units, units
from .preparation.units import Part
from .run_folder.recorder import OnEvent
from .run_folder.store import Store
from .scheduler import Scheduler
from .stores.objects import StoreError

_LOOK = 2.0
"""Seconds between two looks of a part that waits for a tokenizer."""


def prepare_part(plan: Plan, folder: Path, root: Path, on_event: OnEvent, part: Part) -> int:
    """Tokenizes this part's files of all document data sets that need no model.

    Parts may run at the same time, on any hosts that share the run folder or its store, and in any
    order. Their
    results are kept, and a killed part continues where it was. The first part makes the tokenizers,
    since training one reads all its documents; the others wait for it. `execute(…, prepare=True)`
    or a run then joins the parts, tokenizes what is missing, and makes all other data.

    Returns: the number of units in the part.
    Raises: RunError, Stopped.
    """
    store = Store(folder)
    store.pull()
    store.create()
    # The process that joins the parts records the run.
    plan = plan.model_copy(update={"tracking": None})
    _Tokenizers(plan, store, root, on_event).make()
    walk = _Files(plan, store, root, on_event, part)
    walk.tokenize()
    return walk.count


class _Tokenizers(Scheduler):
    """Makes the tokenizers of a plan and nothing else."""

    def __init__(self, plan: Plan, store: Store, root: Path, on_event: OnEvent) -> None:
        super().__init__(plan, store, root, prepare=True, on_event=on_event)

    def make(self) -> None:
        """Makes them, or waits until another part has made them.

        Raises: RunError, Stopped.
        """
        told = False
        while not self._all_there():
            with ExitStack() as lease:
                try:
                    lease.enter_context(self.store.lease(beside=beside(self.plan)))
                except StoreError:
                    raise
                except RunError as problem:
                    if not told:
                        message = f"{problem.message}; this part waits for the tokenizer"
                        self.emit({"event": "note", "message": message})
                        told = True
                    stopping.check("the tokenizer comes next")
                    time.sleep(_LOOK)
                    continue
                self.run()

    def _prepares(self, job: Any) -> bool:
        return isinstance(job, TokenizerJob) and super()._prepares(job)

    def _all_there(self) -> bool:
        self.store.look_again()
        jobs = [j for j in self.plan.jobs if self._prepares(j) and not self.plan.aside(j)]
        return all(self.store.artifact(self._key(job, {})) for job in jobs)


class _Files(Scheduler):
    """Tokenizes files of data sets; publishes nothing, so it needs no lease and no journal.

    Attributes:
        count: the number of units in the part.
    """

    def __init__(self, plan: Plan, store: Store, root: Path, on_event: OnEvent, part: Part) -> None:
        super().__init__(plan, store, root, prepare=True, on_event=on_event)
        self.part = part
        self.count = 0

    def tokenize(self) -> None:
        """Tokenizes the part's files of all data sets.

        Raises: RunError, Stopped.
        """
        try:
            self._walk()
        finally:
            self.recorder.close()

    def _job(self, job: Any) -> Resources | None:
        inputs = {role: self.actual[key] for role, key in job.inputs.items()}
        if isinstance(job, DatasetJob) and (self._is_awaited(job) or not self._there(inputs)):
            return None
        key = self._key(job, inputs)
        # Jobs that depend on a missing data set are left to the process that joins the parts.
        if isinstance(job, TokenizerJob) or self.store.artifact(key):
            self.actual[job.key] = key
        elif self.plan.aside(job):
            return None
        elif isinstance(job, DatasetJob) and job.form == "documents" and "tokenizer" in inputs:
            made = tokenizer.load(self._folder(inputs["tokenizer"]) / "tokenizer.json")
            work = self.store.work(key)
            if job.source["kind"] == "tokens":
                task = token_units.tokens_of(job, made, self.root)
            else:
                task = text_units.texts_of(job, made, self.root)
            if task:
                self.count += len(self.part.units(task))
                with disk(work):
                    units.make(task, job.id, work, self.emit, part=self.part)
        return None

    def _there(self, inputs: dict[str, str]) -> bool:
        return all(self.store.artifact(key) for key in inputs.values())

    def _is_awaited(self, job: DatasetJob) -> bool:
        return job.awaited and any(awaited.missing(job.source, self.root))
