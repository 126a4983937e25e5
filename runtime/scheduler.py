"""The scheduler: walks the plan's graph, runs what is not there yet, and lets gates decide."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..compiler.as_written import measured
from ..compiler.plan.plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    EvaluateJob,
    ExportJob,
    FilterJob,
    ForwardJob,
    GateJob,
    Plan,
    ReferenceJob,
    SampleJob,
    ScoreJob,
    TokenizerJob,
    TrainJob,
    WeightsJob,
)
from ..compiler.values import Resources
from . import weight_files
from .errors import Stopped
from .preparation import prepare
from .preparation.repetition import ALLOWED, advice, readings
from .run_folder.recorder import OnEvent, Recorder
from .run_folder.store import Store, disk
from .run_folder.variant_folders import begun

VERDICT = "verdict.json"
SCORES = "scores.json"
TO_LABEL = "to_label"
"""The folder of a run in which candidates for people to label are written."""


def _nothing() -> None:
    """Where there is one process, it waits for no other."""


class Scheduler:
    """Runs a plan, or what is left of it.

    In a gang every rank walks the same jobs in the same order: all ranks train, rank 0 alone does
    everything else, and all wait for each other after each job.

    Args:
        root: the folder of the spec, where relative paths of data start.
        prepare: make tokenizers and data sets, as far as no model is needed for them, and no more.
        world_size: ranks of this gang. A job that needs another number ends the walk.
        barrier: waits for all ranks.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        root: Path,
        *,
        prepare: bool = False,
        world_size: int = 1,
        rank: int = 0,
        barrier: Callable[[], None] = _nothing,
        on_event: OnEvent = lambda event: None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.root = root
        self.prepare = prepare
        self.world_size = world_size
        self.rank = rank
        self.barrier = barrier
        self.emit = on_event
        self.actual: dict[str, str] = {}
        self.passed: set[str] = set()
        self.told: set[tuple[str, str]] = set()
        # torch remembers meshes by their sizes: those with and without experts apart, which are
        # the same but for the experts, cannot follow each other in a process.
        self.expert: int | None = None
        name = f"{plan.recipe}-{plan.variant}" if plan.variant else plan.recipe
        self.recorder = Recorder(store.folder, name, plan.tracking) if rank == 0 else None

    def run(self) -> Resources | None:
        """Walks the plan to its end, or to the first job that needs another number of ranks, or
        its experts on another number of them.

        Returns: what that job needs, or None at the end.
        Raises: RunError, Stopped.
        """
        try:
            for job in self.plan.jobs:
                if self.prepare and not self._prepares(job):
                    continue
                needed = self._job(job)
                if needed is not None:
                    return needed
            if self.rank == 0:
                for stage, key in self.plan.outputs.items():
                    if key in self.actual:
                        self.store.link(stage, self.actual[key])
        finally:
            if self.recorder:
                self.recorder.close()
        return None

    def _prepares(self, job: Any) -> bool:
        """Whether a job makes data of what is there without any model."""
        made = isinstance(job, TokenizerJob | DatasetJob | FilterJob)
        return made and self.actual.keys() >= set(job.inputs.values())

    def _job(self, job: Any) -> Resources | None:
        if job.extends and not self._extends(job):
            return None
        inputs = {role: self.actual[key] for role, key in job.inputs.items()}
        self.actual[job.key] = key = self._key(job, inputs)
        if self.store.artifact(key) is None:
            if isinstance(job, TrainJob | ForwardJob):
                mesh = job.resources
                if mesh.world_size != self.world_size or self.expert not in (None, mesh.expert):
                    return mesh
                self.expert = mesh.expert
            self._make(job, key, {r: self._folder(k) for r, k in inputs.items()})
        elif self.rank == 0:
            self._record(job, key, "kept")
            if isinstance(job, TrainJob):
                assert self.recorder
                self.recorder.take_over(job.id, job.stage or "", self._folder(key))
            self.emit({"event": "kept", "job": job.id, "kind": job.kind})
        if isinstance(job, GateJob):
            self._decide(job)
        return None

    def _record(self, job: Any, key: str, event: str) -> None:
        # With the plan's own key the journal tells which plan's job it was.
        self.store.record(job.id, key, event, {"plan": job.key})

    def _folder(self, key: str) -> Path:
        folder = self.store.artifact(key)
        assert folder, f"input {key} has no artifact"
        return folder

    def _key(self, job: Any, inputs: dict[str, str]) -> str:
        """The key of the artifact: the plan's, with what the plan could not know.

        That is the data itself, and which attempt of a gated segment its successors start from.
        """
        outside = []
        if isinstance(job, TokenizerJob | DatasetJob):
            folders = {role: self._folder(key) for role, key in inputs.items()}
            outside.append(
                prepare.job_fingerprint(
                    job, self.root, inputs=folders, labels=self.store.folder / TO_LABEL
                )
            )
        if isinstance(job, WeightsJob):
            outside.append(weight_files.fingerprint(job.source, self.root))
        outside += [prepare.fingerprint_file(path) for path in self._read_beside(job)]
        return artifact_key(job, inputs, outside)

    def _read_beside(self, job: Any) -> list[Path]:
        """Files of the spec's folder that a job reads and that are no data: templates, tasks."""
        dialogs = [getattr(job, "dialog", None)]
        folders = []
        for measure in getattr(job, "measures", None) or [getattr(job, "measure", None)]:
            dialogs.append(getattr(measure, "dialog", None))
            folders.append(getattr(measure, "folder", None))
        found = [self.root / d["template"] for d in dialogs if d and "template" in d]
        for folder in folders:
            if folder:
                found += sorted(p for p in (self.root / folder).rglob("*") if p.is_file())
        return found

    def _extends(self, job: Any) -> bool:
        """Whether a conditional job runs: its gate has failed so far."""
        return job.extends.gate not in self.passed

    def _make(self, job: Any, key: str, inputs: dict[str, Path]) -> None:
        work = self.store.work(key)
        if self.rank == 0:
            if isinstance(job, TrainJob):
                self._tell_repetition(job)
                steps = begun(self.store.folder, key)
                if steps and self.recorder:
                    self.recorder.take_up(job.id, job.stage or "", steps)
            if isinstance(job, WeightsJob) and self._changed(job, key):
                self.emit({"event": "changed", "job": job.id})
            self._record(job, key, "started")
            self.emit(
                {
                    "event": "started",
                    "job": job.id,
                    "kind": job.kind,
                    "stage": job.stage,
                    "steps": job.steps,
                    "tokens": job.tokens,
                }
            )
            with disk(work):
                work.mkdir(parents=True, exist_ok=True)
        self.barrier()
        if isinstance(job, TrainJob):
            self._train(job, inputs, work)
        elif isinstance(job, ReferenceJob | ScoreJob):
            from .engine.forward import reference, score

            walk: Any = reference if isinstance(job, ReferenceJob) else score
            walk(job, inputs, work, root=self.store.folder, on_event=self.emit)
        elif self.rank == 0:
            self._alone(job, inputs, work)
        self.barrier()
        if self.rank == 0:
            if isinstance(job, TrainJob):
                assert self.recorder
                self.recorder.hand_over(job.id, work / "result")
            self.store.publish(key, work / "result", job.id)
            self._record(job, key, "finished")
            self.emit({"event": "finished", "job": job.id, "kind": job.kind})
        self.barrier()

    def _tell_repetition(self, job: TrainJob) -> None:
        """Says, once, how often the job's stage reads each source whose data are there by now."""
        keys = {key for role, key in job.inputs.items() if role.startswith("data:")}
        made = {key: self._folder(self.actual[key]) for key in keys}
        allowed = any(found.code in ALLOWED for found in self.plan.silenced)
        for each in readings(self.plan, made):
            if each.stage != job.stage or (each.stage, each.source) in self.told:
                continue
            self.told.add((each.stage, each.source))
            self.emit({"event": "reading", **asdict(each), "message": str(each)})
            if each.much and not allowed:
                self.emit({"event": "warning", "message": f"{each}: {advice(each)}"})

    def _changed(self, job: Any, key: str) -> bool:
        """Whether the run has made the job's result before, from other files."""
        return any(
            event["job"] == job.id
            and event["event"] == "finished"
            and event["key"] != key
            and (event["detail"] or {}).get("plan") == job.key
            for event in self.store.events()
        )

    def _train(self, job: TrainJob, inputs: dict[str, Path], work: Path) -> None:
        from .engine.train import train

        positions = None
        if "model" in inputs and (inputs["model"] / "positions.json").exists():
            positions = json.loads((inputs["model"] / "positions.json").read_text())
            if job.objective.name != "next_token":  # each stage reads its records from the start
                positions = {n: place for n, place in positions.items() if n not in job.data}

        def on_event(event: dict[str, Any]) -> None:
            assert self.recorder
            self.recorder.step(event)
            self.emit(event)

        train(job, inputs, work, root=self.store.folder, on_event=on_event, positions=positions)

    def _alone(self, job: Any, inputs: dict[str, Path], work: Path) -> None:
        if isinstance(job, TokenizerJob):
            prepare.make_tokenizer(job, work, self.root, self.emit)
        elif isinstance(job, DatasetJob):
            prepare.make_dataset(
                job, inputs, work, self.root, self.emit, labels=self.store.folder / TO_LABEL
            )
        elif isinstance(job, FilterJob):
            prepare.make_filter(job, inputs, work)
        elif isinstance(job, WeightsJob):
            from .engine.convert_weights import weights

            counts = weights(job, work, root=self.root)
            self.emit({"event": "weights", "job": job.id, **counts})
        elif isinstance(job, ExportJob):
            from .engine.export import export

            export(job, inputs, work, root=self.root)
        elif isinstance(job, SampleJob):
            from .sampling import sample

            sample(job, inputs, work, root=self.root, on_event=self.emit)
        elif isinstance(job, BestJob):
            self._best(job, inputs, work)
        elif isinstance(job, AverageJob):
            from .engine.mean import average

            average(job, inputs, work)
            if (inputs["of.0"] / "positions.json").exists():
                shutil.copy(inputs["of.0"] / "positions.json", work / "result")
        else:
            self._evaluate(job, inputs, work)

    def _evaluate(self, job: EvaluateJob | GateJob, inputs: dict[str, Path], work: Path) -> None:
        from .evaluation.evaluate import measure, verdict

        scores = measure(job.measures, inputs["model"], **self._measured(inputs))
        assert self.recorder
        self.recorder.scores(job.id, scores)
        if isinstance(job, EvaluateJob):
            prepare.write_json(work, SCORES, scores)
            self.emit({"event": "scores", "job": job.id, "scores": scores})
            return
        start = {}
        if "start" in inputs:
            start = json.loads((inputs["start"] / SCORES).read_text())
        prepare.write_json(work, VERDICT, verdict(job, scores, start) | {"scores": scores})

    def _measured(self, inputs: dict[str, Path]) -> dict[str, Any]:
        """What measures read besides the model."""

        def of(what: str) -> dict[str, Path]:
            return {r.removeprefix(what): p for r, p in inputs.items() if r.startswith(what)}

        return {
            "data": of("data:"),
            "prompts": of("prompts:"),
            "judge": inputs.get("judge"),
            "root": self.root,
        }

    def _best(self, job: BestJob, inputs: dict[str, Path], work: Path) -> None:
        from .evaluation.best import pick

        found = pick(job, inputs, work, **self._measured(inputs))
        assert self.recorder
        self.recorder.scores(job.id, {job.measure.name: {"score": found["score"]}})
        self.emit({"event": "picked", "job": job.id, **found})

    def _decide(self, job: GateJob) -> None:
        """Continues after a gate: its segment's successors start from the attempt that passed.

        Raises: Stopped: the last attempt has failed.
        """
        found = json.loads((self._folder(self.actual[job.key]) / VERDICT).read_text())
        if self.rank == 0:
            self.emit(
                {
                    "event": "gate",
                    "job": job.id,
                    "what": job.what,
                    "attempt": job.attempt,
                    "attempts": job.attempts,
                    **found,
                }
            )
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


def artifact_key(job: Any, inputs: Mapping[str, str], outside: Sequence[str]) -> str:
    """The key of a job's artifact.

    Args:
        inputs: role → key of the artifact that it reads.
        outside: digests of what the result depends on and the plan does not know.
    """
    parts = [job.key, *(f"{role}={key}" for role, key in sorted(inputs.items())), *outside]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
