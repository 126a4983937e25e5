"""Jobs that measure models."""

import json
from pathlib import Path
from typing import Any

from ..preparation import prepare
from ..run_folder.store import disk
from .task import Task

VERDICT = "verdict.json"
SCORES = "scores.json"
KEPT = "scores.partial.json"


def evaluate(task: Task) -> None:
    """Measures a model, and writes the scores."""
    scores = _scores(task)
    prepare.write_json(task.work, SCORES, scores)
    task.run.emit({"event": "scores", "job": task.job.id, "scores": scores})


def gate(task: Task) -> None:
    """Measures a model, and writes whether it passes."""
    from ..evaluation.evaluate import verdict

    scores = _scores(task)
    start = {}
    if "start" in task.inputs:
        start = json.loads((task.inputs["start"] / SCORES).read_text())
    prepare.write_json(task.work, VERDICT, verdict(task.job, scores, start) | {"scores": scores})


def best(task: Task) -> None:
    """Measures several models, and picks one."""
    from ..evaluation.best import pick

    job, run = task.job, task.run
    found = pick(job, task.inputs, task.work, **_read(task))
    assert run.recorder
    run.recorder.scores(job.id, {job.measure.name: {"score": found["score"]}})
    run.emit({"event": "picked", "job": job.id, **found})


def _scores(task: Task) -> dict[str, Any]:
    from ..evaluation.evaluate import measure

    kept = task.work / KEPT
    with disk(kept):
        scores = measure(task.job.measures, task.inputs["model"], kept=kept, **_read(task))
    assert task.run.recorder
    task.run.recorder.scores(task.job.id, scores)
    return scores


def _read(task: Task) -> dict[str, Any]:
    """What measures read besides the model."""

    def of(what: str) -> dict[str, Path]:
        return {r.removeprefix(what): p for r, p in task.inputs.items() if r.startswith(what)}

    return {
        "data": of("data:"),
        "prompts": of("prompts:"),
        "judge": task.inputs.get("judge"),
        "root": task.run.root,
    }
