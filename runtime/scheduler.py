"""The scheduler: walks the plan's graph, runs the remaining jobs, and lets gates decide."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..compiler.as_written import measured
from ..compiler.plan.keys import OBSERVER
from ..compiler.plan.phases import ranks_of, use_of
from ..compiler.plan.plan import ExportJob, ForwardJob, GateJob, Plan, TrainJob
from ..compiler.values import Resources
from . import imports, stopping, verification
from .asked import lacking
from .decision import Alone, Decision, End, Gang, Together
from .disk import disk
from .errors import Stopped
from .held import make_room
from .jobs import WORK
from .jobs.measuring import VERDICT
from .jobs.task import Run, Task
from .passing import Passing
from .peers import Peers
from .preparation import prepare
from .run_folder import ran
from .run_folder.logger import Made
from .run_folder.patience import wait_for
from .run_folder.recorder import KEPT, OnEvent, Recorder
from .run_folder.store import MANIFEST, Store
from .run_folder.trackers import loggers


class Scheduler:
    """Runs a plan, or the rest of it.

    In a gang rank 0 has the scheduler, and the other ranks `follow` its decisions. All ranks train,
    read held-out data, and write on several GPUs; rank 0 alone does everything else.

    Args:
        root: the spec's folder, which relative data paths start from.
        prepare: make only tokenizers and data sets, as far as they need no model.
        gang: the ranks. A job that needs a different number of ranks ends the walk.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        root: Path,
        *,
        prepare: bool = False,
        gang: Gang | None = None,
        on_event: OnEvent = lambda event: None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.root = root
        self.prepare = prepare
        self.gang: Gang = gang or Alone()
        self.emit = on_event
        self.actual: dict[str, str] = {}
        self.passed: set[str] = set()
        self.passing = Passing(plan, store)
        self.use: int | str | None = None
        self.recorder = Recorder(store.folder, loggers(plan, store.folder), on_event)
        self.shared = Run(plan, store, root, on_event, self.recorder, self.gang)

    def run(self) -> Resources | None:
        """Walks the plan to its end, or to the first job that needs another number of ranks or
        another expert parallelism.

        Returns: what that job needs; None at the end.
        Raises: RunError, Stopped.
        """
        remote = self.store.remote
        try:
            with remote.following(metrics=True) if remote else nullcontext():
                needs = self._walk()
            if needs is None:
                for stage, key in self.plan.outputs.items():
                    if key in self.actual:
                        self.store.link(stage, self.actual[key])
        finally:
            self.recorder.close()
        self.gang.end(End(needs))
        return needs

    def _walk(self) -> Resources | None:
        for job in self.plan.jobs:
            self.store.require_lease()
            if self.prepare and not self._prepares(job):
                continue
            needed = self._job(job)
            if needed is not None:
                return needed
        return None

    def _prepares(self, job: Any) -> bool:
        """Whether a job makes data from inputs that exist, without a model."""
        return WORK[type(job)].prepares and self.actual.keys() >= set(job.inputs.values())

    def _job(self, job: Any) -> Resources | None:
        if job.extends and not self._extends(job):
            return None
        if self.plan.part is not None and not self._is_known(job):
            return None
        inputs = {role: self.actual[key] for role, key in job.inputs.items()}
        self.actual[job.key] = key = self._key(job, inputs)
        self.passing.knows(job, key, inputs)
        if self.plan.aside(job) and self.store.artifact(key) is None:
            if isinstance(job, GateJob):
                raise lacking(self.plan, [job])
        elif self.store.artifact(key) is None:
            needed = self._make_with_inputs(job, key, inputs)
            if needed is not None:
                return needed
        else:
            if not self.store.is_spent(key):
                self.store.clear(key)
                self.passing.spend(key)
            self._record(job, key, "kept")
            kept = self._folder(key, only=KEPT)
            WORK[type(job)].kept(Task(job, key, {}, kept, self.shared))
            self.emit({"event": "kept", "job": job.id, "kind": job.kind})
        if isinstance(job, GateJob):
            self._decide(job)
        return None

    def _is_known(self, job: Any) -> bool:
        """Whether a part of a plan has all inputs of a job, or all that its key depends on.

        Raises: RunError: the part includes the job but lacks some of its inputs.
        """
        missing = [
            each
            for each in self.plan.jobs
            if each.key in job.inputs.values()
            and (each.key not in self.actual or self.store.artifact(self.actual[each.key]) is None)
        ]
        if self.plan.aside(job):
            keyed = WORK[type(job)].outside is not None
            return not (missing if keyed else job.inputs.values() - self.actual.keys())
        if missing:
            raise lacking(self.plan, missing)
        return True

    def _record(self, job: Any, key: str, event: str) -> None:
        # The plan's own key tells which plan the job in the journal belongs to.
        self.store.record(job.id, key, event, {"plan": job.key})

    def _folder(self, key: str, only: Collection[str] | None = None) -> Path:
        folder = self.store.fetch(key, only)
        assert folder, f"input {key} has no artifact"
        return folder

    def _key(self, job: Any, inputs: dict[str, str]) -> str:
        """The artifact's key: the plan's, extended by what the plan could not know.

        That is the data itself, and which attempt at a gated segment its successors start from.
        """
        outside: list[str] = []
        if digests := WORK[type(job)].outside:
            folders = {role: self._folder(key) for role, key in inputs.items()}
            outside += digests(job, folders, self.shared)
        outside += [prepare.fingerprint_file(path) for path in self._read_beside(job)]
        return artifact_key(job, inputs, outside)

    def _read_beside(self, job: Any) -> list[Path]:
        """Files in the spec's folder that a job reads besides data: templates, tasks, schemas."""
        dialogs = [getattr(job, "dialog", None)]
        folders = []
        measures = getattr(job, "measures", None) or [getattr(job, "measure", None)]
        for measure in measures:
            dialogs.append(getattr(measure, "dialog", None))
            folders.append(getattr(measure, "folder", None))
        found = [self.root / d["template"] for d in dialogs if d and "template" in d]
        for each in (job, *measures):
            found += verification.files(getattr(each, "verify", {}), self.root)
        for folder in folders:
            if folder:
                found += sorted(p for p in (self.root / folder).rglob("*") if p.is_file())
        return found

    def _extends(self, job: Any) -> bool:
        """Whether a conditional job runs: its gate has not passed yet."""
        return job.extends.gate not in self.passed

    def _make_with_inputs(self, job: Any, key: str, inputs: dict[str, str]) -> Resources | None:
        """Makes a job's result, and before it those inputs of which only the record is left.

        Returns: what the next job needs, if that is another number of ranks, or another process.
        """
        lost = self.passing.lost(inputs.values())
        self.passing.again = {each for each, _ in lost}
        for each, (of, read) in [*lost, (key, (job, inputs))]:
            mesh = ranks_of(of)
            if mesh is not None:
                use = use_of(of)
                another = None not in (use, self.use) and use != self.use
                if mesh.world_size != self.gang.world_size or another:
                    return mesh
                self.use = use or self.use
            self._make(of, each, read, together=mesh is not None)
            self.passing.again.discard(each)
            self.passing.spend(each)
        return None

    def _make(self, job: Any, key: str, inputs: Mapping[str, str], *, together: bool) -> None:
        stopping.check(f"`{job.id}` comes next")
        work = WORK[type(job)]
        if not work.prepares:
            imports.wait()
        folders = {role: self._folder(key) for role, key in inputs.items()}
        for each in inputs.values():
            self.store.verify(each, shards=not together)
        task = Task(job, key, folders, self.store.work(key), self.shared)
        work.before(task)
        self._record(job, key, "started")
        about = {name: getattr(job, name) for name in ("kind", "stage", "steps", "tokens")}
        self.emit({"event": "started", "job": job.id, **about})
        with disk(task.work):
            task.work.mkdir(parents=True, exist_ok=True)
            ran.begin(task.work, job)
        # Most jobs say more exactly what the disk has refused.
        with disk(task.work):
            if not together:
                _do(replace(task, known=work.known(task)))
            elif not (task.work / "result").is_dir():
                task = replace(task, known=work.known(task))
                decision = Together(job.id, key, inputs, task.known, self.passing.take_spent())
                self.gang.all_do(decision, partial(_do, task))
            work.after(task)
        self.store.require_lease()
        self.store.publish(key, task.work / "result", job.id)
        self._record(job, key, "finished")
        if isinstance(job, TrainJob):
            manifest = self.store.folder / "artifacts" / key / MANIFEST
            self.recorder.result(Made(job.id, job.stage or job.id, key, inputs, manifest))
        self.emit({"event": "finished", "job": job.id, "kind": job.kind})

    def _decide(self, job: GateJob) -> None:
        """Continues after a gate: its segment's successors start from the attempt that passed.

        Raises: Stopped: the last attempt has failed.
        """
        found = json.loads((self._folder(self.actual[job.key]) / VERDICT).read_text())
        about = {"job": job.id, "what": job.what, "attempt": job.attempt, "attempts": job.attempts}
        self.emit({"event": "gate", **about, **found})
        if not found["passed"]:
            if job.attempt == job.attempts:
                raise Stopped(self._failure(job, found), self._advice(job))
            return
        self.passed.add(job.segment)
        if job.attempt:
            self._replace(job)

    def _replace(self, job: GateJob) -> None:
        last = next(
            j
            for j in self.plan.jobs
            if isinstance(j, TrainJob)
            and j.extends
            and (j.extends.gate, j.extends.number) == (job.segment, job.attempt)
        )
        self.actual[job.segment] = self.actual[last.key]
        exports = {j.inputs["model"]: j.key for j in self.plan.jobs if isinstance(j, ExportJob)}
        if job.segment in exports:
            self.actual[exports[job.segment]] = self.actual[exports[last.key]]

    def _failure(self, job: GateJob, found: dict[str, Any]) -> str:
        failed = [
            f"{r['measure']} is {measured(r['score'], 4)}, "
            f"required {r['op']} {measured(r['wanted'], 4)}"
            for r in found["requirements"]
            if not r["passed"]
        ]
        times = f" after {job.attempts} extensions" if job.attempts else ""
        return f"the gate on {job.what} does not pass{times}: {'; '.join(failed)}"

    def _advice(self, job: GateJob) -> str:
        return (
            "train longer at this length, or relax the gate, and run again: "
            "everything finished so far is kept"
        )


class Following(Peers, Protocol):
    """A gang as seen by a rank other than 0."""

    def hear(self) -> Decision: ...

    def arrive(self) -> None: ...


def follow(plan: Plan, store: Store, root: Path, ranks: Following) -> Resources | None:
    """Does what rank 0 decides, on another rank, until rank 0 ends it.

    Returns: what the next job needs; None at the end of the plan.
    Raises: RunError, Stopped.
    """
    jobs = {job.id: job for job in plan.jobs}
    shared = Run(plan, store, root, lambda event: None, None, ranks)
    while isinstance(decision := ranks.hear(), Together):
        artifacts = store.folder / "artifacts"
        inputs = {role: artifacts / key for role, key in decision.inputs.items()}
        for key in decision.spent:
            store.drop(key)
        for key in decision.inputs.values():
            store.take_over(key)
        store.make_room(decision.key)
        wait_for([folder / MANIFEST for folder in inputs.values()], ranks.rank)
        job, work = jobs[decision.job], store.work(decision.key)
        _do(Task(job, decision.key, inputs, work, shared, decision.known))
        ranks.arrive()
    store.make_room("")
    return decision.needs


def _do(task: Task) -> None:
    """Does a job's work, on each rank that does it."""
    if isinstance(task.job, TrainJob | ForwardJob):
        make_room()
    WORK[type(task.job)].do(task)


def artifact_key(job: Any, inputs: Mapping[str, str], outside: Sequence[str]) -> str:
    """The key of a job's artifact.

    Args:
        inputs: role → key of the artifact that it reads.
        outside: digests of what the result depends on besides the plan.
    """
    read = {role: key for role, key in inputs.items() if not role.startswith(OBSERVER)}
    parts = [job.key, *(f"{role}={key}" for role, key in sorted(read.items())), *outside]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
