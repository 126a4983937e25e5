"""Event files of TensorBoard."""

import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..disk import disk
from .figures import figures, losses, scored
from .logger import Made

BOARDS = "tensorboard"


class Boards:
    """Event files of TensorBoard: a run for each stage, over its steps, and one of the scores.

    If steps are repeated, after a checkpoint, TensorBoard is told to drop what it has of them.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._last: tuple[str, int] = ("", 0)
        self._evaluated: tuple[str, int] = ("", 0)

    def step(self, event: Mapping[str, Any]) -> None:
        """Adds a step: its figures, and the stage's tokens so far."""
        stage, step = event["stage"], event["step"]
        if _begins(event, self._last):
            self._add(stage, step, begins=True)
        self._last = event["job"], step
        self._add(stage, step, {**figures(event), "tokens": event["tokens"]})

    def evaluation(self, event: Mapping[str, Any]) -> None:
        """Adds an evaluation inside a stage to the stage's run, over its steps, and to one of its
        own, over its tokens."""
        self._add(event["stage"], event["step"], losses(event))
        over_tokens, tokens = f"{event['stage']} by tokens", event["tokens"]
        if _begins(event, self._evaluated):
            self._add(over_tokens, tokens, begins=True)
        self._evaluated = event["job"], event["step"]
        self._add(over_tokens, tokens, losses(event))

    def scores(self, job: str, stage: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds the scores of an evaluation or gate."""
        self._add("scores", 0, {f"{job}/{name}": score for name, score in scored(scores).items()})

    def result(self, made: Made) -> None:
        """TensorBoard has no place for results."""

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


def _begins(event: Mapping[str, Any], last: tuple[str, int]) -> bool:
    """Whether an event is the first of a job in this process, or of steps that the job repeats."""
    job, step = last
    return event["job"] != job or event["step"] <= step
