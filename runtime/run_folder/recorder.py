"""Records a run: metrics as JSON lines, and W&B or TensorBoard if requested."""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ..disk import disk, write
from ..errors import RunError
from .json_lines import Lines

KNOWN = ("event", "job", "stage", "step", "tokens", "mixture", "sources")
"""Fields of a step that a tracker gets in another form; it gets all other figures unchanged."""
BOARDS = "tensorboard"


class Kind(NamedTuple):
    """A kind of lines that a train job has: the names of its file in a run and in an artifact.

    It is in the artifact so that it stays with the result.
    """

    ending: str
    kept: str


STEPS = Kind(".jsonl", "metrics.jsonl")
EVALUATIONS = Kind(".evaluations.jsonl", "evaluations.jsonl")
KINDS = (STEPS, EVALUATIONS)
KEPT = tuple(kind.kept for kind in KINDS)
OnEvent = Callable[[dict[str, Any]], None]


class Recorder:
    """Writes each step of a train job as a line of `metrics/JOB.jsonl`, and each evaluation inside
    it as one of `metrics/JOB.evaluations.jsonl`.

    If a job continues from a checkpoint, the lines of the steps that it repeats are dropped, so
    every step is in the file once, in order.
    """

    def __init__(self, folder: Path, recipe: str, tracking: str | None) -> None:
        self._folder = folder / "metrics"
        self._lines = {kind: _Lines(self._folder, kind) for kind in KINDS}
        self._wandb = _wandb(folder, recipe) if tracking == "wandb" else None
        self._boards = Boards(folder / BOARDS) if tracking == "tensorboard" else None
        self._tokens = 0

    def step(self, event: dict[str, Any]) -> None:
        """Records the event of a step."""
        if self._lines[STEPS].add(event):
            self._lines[EVALUATIONS].drop(event["job"], event["step"])
        if self._boards:
            self._boards.step(event)
        if self._wandb:
            self._tokens += event["sequences"] * event["seq_len"]
            self._wandb.log(
                {"tokens": self._tokens, "stage": event["stage"], "step": event["step"]}
                | figures(event)
            )

    def evaluation(self, event: dict[str, Any]) -> None:
        """Records the event of an evaluation inside a train job."""
        self._lines[EVALUATIONS].add(event)
        if self._boards:
            self._boards.evaluation(event)
        if self._wandb:
            self._wandb.log(
                {"tokens": self._tokens, "stage": event["stage"], "step": event["step"]}
                | losses(event)
            )

    def scores(self, job: str, scores: dict[str, Any]) -> None:
        """Records the scores of an evaluation or gate."""
        if self._boards:
            self._boards.scores(job, {name: score["score"] for name, score in scores.items()})
        if self._wandb:
            self._wandb.log({f"{job}/{name}": score["score"] for name, score in scores.items()})

    def hand_over(self, job: str, result: Path) -> None:
        """Copies the steps and evaluations of a job that ends into its result."""
        self.close_files()
        for kind in KINDS:
            own = self._folder / f"{job}{kind.ending}"
            with disk(result):
                if own.exists():
                    shutil.copyfile(own, result / kind.kept)

    def take_over(self, job: str, stage: str, artifact: Path) -> None:
        """Shows the steps and evaluations of a job that is kept as this run's, whatever its name
        was before."""
        for kind in KINDS:
            self._take(job, stage, kind, artifact / kind.kept)

    def take_up(self, job: str, stage: str, steps: Path) -> None:
        """Shows the steps in a file, possibly of another run's unfinished job, and the evaluations
        beside it, as this run's."""
        for kind in KINDS:
            name = steps.name.removesuffix(STEPS.ending) + kind.ending
            self._take(job, stage, kind, steps.with_name(name))

    def _take(self, job: str, stage: str, kind: Kind, path: Path) -> None:
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:  # made by a version of etude that did not keep them
            return
        own = self._folder / f"{job}{kind.ending}"
        text = ""
        for line in lines:
            try:
                text += json.dumps(json.loads(line) | {"job": job, "stage": stage}) + "\n"
            except ValueError:
                break  # a line torn by a crash
        if not own.exists() or own.read_text() != text:
            with disk(own):
                write(own, text)

    def close_files(self) -> None:
        for lines in self._lines.values():
            lines.close()

    def close(self) -> None:
        self.close_files()
        if self._boards:
            self._boards.close()
        if self._wandb:
            self._wandb.finish()


class _Lines:
    """The lines of a kind of the job at work."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder = folder
        self._kind = kind
        self._file: Lines | None = None
        self._job: str | None = None

    def add(self, event: Mapping[str, Any]) -> bool:
        """Adds an event; returns whether it is the first of the job in this process."""
        first = event["job"] != self._job
        if first:
            self.open(event["job"], event["step"])
        assert self._file
        with disk(self._file.path):
            self._file.append(event, durable=False)
        return first

    def drop(self, job: str, step: int) -> None:
        """Drops the lines that a job has from a step on, which will be repeated."""
        if (self._folder / f"{job}{self._kind.ending}").exists():
            self.open(job, step)

    def open(self, job: str, step: int) -> None:
        """Opens the file of a job, without its lines from a step on."""
        self.close()
        path = self._folder / f"{job}{self._kind.ending}"
        with disk(path):
            kept = []
            if path.exists():
                for line in path.read_text().splitlines():
                    try:
                        if json.loads(line)["step"] < step:
                            kept.append(line)
                    except (ValueError, KeyError):
                        break  # a line torn by a crash
            write(path, "".join(line + "\n" for line in kept))
            self._file = Lines(path)
        self._job = job

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file = self._job = None


def losses(event: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation's figures for a tracker: losses, and what comes with those of preferences."""
    found = {}
    for name, score in event["scores"].items():
        found[f"evaluation/{name}"] = score["score"]
        source = name.partition("(")[2]
        for more in ("accuracy", "margin"):
            if more in score:
                found[f"evaluation/{more}({source}"] = score[more]
    return found


def figures(event: Mapping[str, Any]) -> dict[str, float]:
    """A step's figures for a tracker, with what each source has given so far, and its share of the
    mixture."""
    shares = sum(event["mixture"].values())
    return (
        {name: figure for name, figure in event.items() if name not in KNOWN}
        | {f"tokens/{name}": drawn for name, drawn in event["sources"].items()}
        | {f"share/{name}": weight / shares for name, weight in event["mixture"].items()}
    )


class Boards:
    """Event files of TensorBoard: a run for each stage, over its steps, and one of the scores.

    If steps are repeated, after a checkpoint, TensorBoard is told to drop what it has of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._job: str | None = None
        self._evaluated: str | None = None

    def step(self, event: Mapping[str, Any]) -> None:
        """Adds a step: its figures, and the stage's tokens so far."""
        stage, step = event["stage"], event["step"]
        if event["job"] != self._job:
            self._job = event["job"]
            self._add(stage, step, begins=True)
        self._add(stage, step, {**figures(event), "tokens": event["tokens"]})

    def evaluation(self, event: Mapping[str, Any]) -> None:
        """Adds an evaluation inside a stage to the stage's run, over its steps, and to one of its
        own, over its tokens."""
        self._add(event["stage"], event["step"], losses(event))
        over_tokens, tokens = f"{event['stage']} by tokens", event["tokens"]
        if event["job"] != self._evaluated:
            self._evaluated = event["job"]
            self._add(over_tokens, tokens, begins=True)
        self._add(over_tokens, tokens, losses(event))

    def scores(self, job: str, scores: Mapping[str, float]) -> None:
        """Adds the scores of an evaluation or gate."""
        self._add("scores", 0, {f"{job}/{name}": score for name, score in scores.items()})

    def close(self) -> None:
        """Writes what is not on the disk yet."""
        for writer in self._writers.values():
            with disk(self._folder):
                writer.close()
        self._writers = {}

    def _add(
        self,
        run: str,
        step: int,
        values: Mapping[str, float] | None = None,
        *,
        begins: bool = False,
    ) -> None:
        proto: Any = import_module("tensorboard.compat.proto.event_pb2")
        summaries: Any = import_module("tensorboard.compat.proto.summary_pb2")
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        with disk(self._folder):
            if run not in self._writers:
                self._writers[run] = EventFileWriter(str(self._folder / run))
            told: Any = (
                {"session_log": proto.SessionLog(status=proto.SessionLog.START)} if begins else {}
            )
            if values is not None:
                value = [
                    summaries.Summary.Value(tag=tag, simple_value=of) for tag, of in values.items()
                ]
                told = {"summary": summaries.Summary(value=value)}
            self._writers[run].add_event(proto.Event(wall_time=time.time(), step=step, **told))


def _wandb(folder: Path, recipe: str) -> Any:
    """A W&B run in the run folder: offline, unless WANDB_MODE says otherwise."""
    try:
        import wandb
    except ImportError:
        raise RunError("the recipe tracks with wandb, which is not installed") from None
    identity = folder / "wandb_id"
    if not identity.exists():
        with disk(identity):
            write(identity, secrets.token_hex(4))
    run = wandb.init(
        project="etude",
        name=recipe,
        id=identity.read_text(),
        resume="allow",
        # W&B's service may belong to a parent process with another working directory.
        dir=folder.resolve(),
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
        settings=wandb.Settings(silent=True, console="off"),
    )
    # Evaluations come after steps that differ in tokens.
    run.define_metric("evaluation/*", step_metric="tokens")
    return run
