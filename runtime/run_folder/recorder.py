"""Records a run: metrics as JSON lines, and what trackers are told."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...compiler.files.urls import shown
from ..disk import disk, write
from ..errors import RunError
from .json_lines import Lines, record_of
from .logger import Logger, Made


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

    def __init__(
        self,
        folder: Path,
        loggers: Sequence[Logger] = (),
        on_event: OnEvent = lambda event: None,
    ) -> None:
        self._folder = folder / "metrics"
        self._lines = {kind: _Lines(self._folder, kind) for kind in KINDS}
        self._loggers = list(loggers)
        self._emit = on_event

    def step(self, event: dict[str, Any]) -> None:
        """Records the event of a step."""
        if self._lines[STEPS].add(event):
            self._lines[EVALUATIONS].drop(event["job"], event["step"])
        self._tell(lambda logger: logger.step(event))

    def evaluation(self, event: dict[str, Any]) -> None:
        """Records the event of an evaluation inside a train job."""
        self._lines[EVALUATIONS].add(event)
        self._tell(lambda logger: logger.evaluation(event))

    def scores(self, job: str, stage: str, scores: dict[str, Any]) -> None:
        """Tells trackers the scores of an evaluation or gate."""
        self._tell(lambda logger: logger.scores(job, stage, scores))

    def result(self, made: Made) -> None:
        """Tells trackers what a train job has made, and of what."""
        self._tell(lambda logger: logger.result(made))

    def _tell(self, tell: Callable[[Logger], None]) -> None:
        """Tells all trackers. One that fails is told no more: a service that is down must not end
        a run of weeks, whose figures are in its folder anyway."""
        for logger in [*self._loggers]:
            try:
                tell(logger)
            except RunError:
                raise
            except Exception as reason:  # whatever the library of a tracker raises
                self._loggers.remove(logger)
                self._emit({"event": "warning", "message": failed(logger, reason)})

    def go_back(self) -> None:
        """Lets the job at work repeat steps: the lines that it has of them are dropped then."""
        self.close_files()

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
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:  # made by a version of etude that did not keep them
            return
        own = self._folder / f"{job}{kind.ending}"
        text = ""
        for line in lines:
            if (record := record_of(line)) is None:
                break  # a line torn by a crash
            text += json.dumps(record | {"job": job, "stage": stage}) + "\n"
        if not own.exists() or own.read_bytes() != text.encode():
            with disk(own):
                write(own, text)

    def close_files(self) -> None:
        for lines in self._lines.values():
            lines.close()

    def close(self) -> None:
        self.close_files()
        self._tell(lambda logger: logger.close())


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
                for line in path.read_bytes().splitlines():
                    record = record_of(line)
                    if record is None or not isinstance(record.get("step"), int):
                        break  # a line torn by a crash
                    if record["step"] < step:
                        kept.append(line)
            write(path, b"".join(line + b"\n" for line in kept))
            self._file = Lines(path)
        self._job = job

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._file = self._job = None


def failed(logger: Logger, reason: Exception) -> str:
    """What is said of a tracker that fails, without secrets of its URL."""
    lines = shown(str(reason)).strip().splitlines()
    why = f": {lines[0]}" if lines else ""
    return (
        f"{logger.name} has failed ({type(reason).__name__}{why}), and gets nothing more in this "
        "process; all figures are in metrics/"
    )
