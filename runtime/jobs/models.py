"""Jobs that make models without training, and jobs in which models write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import weight_files as files
from ..disk import write
from .task import Run, Task


def published(job: Any, inputs: Mapping[str, Path], run: Run) -> list[str]:
    """The digest of published weights."""
    return [files.fingerprint(job.source, run.root)]


def tell_change(task: Task) -> None:
    """Reports if the run has made the result before, from other files."""
    if any(
        event["job"] == task.job.id
        and event["event"] == "finished"
        and event["key"] != task.key
        and (event["detail"] or {}).get("plan") == task.job.key
        for event in task.run.store.events()
    ):
        task.run.emit({"event": "changed", "job": task.job.id})


def weights(task: Task) -> None:
    """Converts published weights."""
    from ..engine.weights.convert import weights

    counts = weights(task.job, task.work, root=task.run.root)
    task.run.emit({"event": "weights", "job": task.job.id, **counts})


def average(task: Task) -> None:
    """Averages models; later data start at the first model's positions."""
    from ..engine.weights.mean import average

    average(task.job, task.inputs, task.work)
    positions = task.inputs["of.0"] / "positions.json"
    if positions.exists():
        write(task.work / "result" / positions.name, positions.read_bytes())


def ensemble(task: Task) -> None:
    """Makes one score of those of several judges."""
    from ..sampling.judging import together

    together(task.job, task.inputs, task.work)


def export(task: Task) -> None:
    """Writes a model in the format of transformers."""
    from ..engine.weights.export import export

    export(task.job, task.inputs, task.work, root=task.run.root)


def drawn(task: Task) -> dict[str, Any]:
    """The draws from before the job was interrupted."""
    from ..sampling.draw_files import drawn

    return {"done": drawn(task.work, task.job.draws)}


def draw(task: Task) -> None:
    """Draws answers to prompts."""
    from ..sampling import draw

    draw(
        task.job,
        task.inputs,
        task.work,
        root=task.run.root,
        on_event=task.run.emit,
        done=task.known["done"],
        peers=task.run.peers,
    )


def rollout(task: Task) -> None:
    """Scores answers, for a policy to learn from."""
    from ..sampling import rollout

    rollout(task.job, task.inputs, task.work, root=task.run.root, on_event=task.run.emit)


def sample(task: Task) -> None:
    """Keeps the best draws."""
    from ..sampling import sample

    run = task.run
    sample(task.job, task.inputs, task.work, root=run.root, on_event=run.emit)
