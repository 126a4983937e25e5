"""What a run tells a tracker of experiments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Made(NamedTuple):
    """The result of a train job, and what it was made of.

    Attributes:
        inputs: role → key of the result that the job read.
        manifest: the result's files with their sizes and SHA-256.
    """

    job: str
    stage: str
    key: str
    inputs: Mapping[str, str]
    manifest: Path


class Logger(Protocol):
    """A tracker, or files for one. Whatever its library raises, it may raise."""

    name: str

    def step(self, event: Mapping[str, Any]) -> None:
        """Takes the event of a step."""
        ...

    def evaluation(self, event: Mapping[str, Any]) -> None:
        """Takes the event of an evaluation inside a stage."""
        ...

    def scores(self, job: str, stage: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the scores of an evaluation or gate."""
        ...

    def result(self, made: Made) -> None:
        """Takes what a train job has made. The files stay where they are."""
        ...

    def close(self) -> None:
        """Sends what has not been sent yet."""
        ...
