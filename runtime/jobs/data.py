"""Jobs that make tokenizers and data sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..preparation import prepare
from .task import Run, Task


def outside(job: Any, inputs: Mapping[str, Path], run: Run) -> list[str]:
    """The digest of the data themselves."""
    return [prepare.job_fingerprint(job, run.root, inputs=inputs, labels=run.labels)]


def tokenizer(task: Task) -> None:
    """Trains or loads a tokenizer."""
    prepare.make_tokenizer(task.job, task.work, task.run.root, task.run.emit)


def dataset(task: Task) -> None:
    """Makes a data set from files, samples or results."""
    run = task.run
    prepare.make_dataset(task.job, task.inputs, task.work, run.root, run.emit, labels=run.labels)


def filtered(task: Task) -> None:
    """Keeps or drops documents by their scores."""
    prepare.make_filter(task.job, task.inputs, task.work)
