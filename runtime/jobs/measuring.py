"""Jobs that measure models."""

import json
from typing import Any

from ...compiler.plan.measures import RewardMeasure, VerifiedMeasure
from ..disk import disk, write_by
from ..preparation import prepare
from ..run_folder.progress import VERDICT
from .task import Task

SCORES = "scores.json"
KEPT = "scores.partial.json"


def kept(task: Task) -> dict[str, Any]:
    """The scores of finished measures, from before the job was interrupted."""
    from ..evaluation.evaluate import read_whole

    return {"kept": read_whole(task.work / KEPT)}


def evaluate(task: Task) -> None:
    """Measures a model, and writes the scores."""
    scores = _scores(task)
    if task.leads:
        prepare.write_json(task.work, SCORES, scores)
        task.run.emit({"event": "scores", "job": task.job.id, "scores": scores})


def gate(task: Task) -> None:
    """Measures a model, and writes whether it passes."""
    from ..evaluation.evaluate import verdict

    scores = _scores(task)
    if not task.leads:
        return
    start = {}
    if "start" in task.inputs:
        start = json.loads((task.inputs["start"] / SCORES).read_text())
    prepare.write_json(task.work, VERDICT, verdict(task.job, scores, start) | {"scores": scores})


def best(task: Task) -> None:
    """Measures several models, and picks one."""
    from ..evaluation.best import pick

    job, run = task.job, task.run
    name = job.measure.name
    scores = {}
    for number, stage in enumerate(job.of):
        found = _measured(task, [job.measure], f".{number}", f"{stage}: ")
        scores[stage] = found[name]["score"]
    if not task.leads:
        return
    found = pick(job, task.inputs, task.work, scores=list(scores.values()))
    assert run.recorder
    run.recorder.scores(job.id, job.stage or job.id, {name: {"score": found["score"]}})
    run.emit({"event": "picked", "job": job.id, **found})


def _scores(task: Task) -> dict[str, Any]:
    scores = _measured(task, task.job.measures, "", "")
    if task.run.recorder:
        job = task.job
        task.run.recorder.scores(job.id, job.stage or job.id, scores)
    return scores


def _measured(task: Task, measures: list[Any], number: str, prefix: str) -> dict[str, Any]:
    """The scores of a model, by the measures' names.

    Args:
        number: the model's number among several, as in the roles of inputs.
        prefix: of the names under which scores are kept.
    """
    held = task.inputs.get(f"scores{number}")
    scores = json.loads((held / SCORES).read_text()) if held else {}
    if f"draws{number}" in task.inputs:
        scores |= _of_answers(task, measures, number)
    left = [each for each in measures if each.name not in scores]
    if left:
        scores |= _asked(task, left, number, prefix)
    return {each.name: scores[each.name] for each in measures}


def _of_answers(task: Task, measures: list[Any], number: str) -> dict[str, Any]:
    """The scores that a judge and verifiers give answers."""
    from ..evaluation.reward import reward
    from ..evaluation.verified import verified

    roles = ("draws", "prompts", "judged")
    draws, prompts, judged = (task.inputs.get(f"{role}{number}") for role in roles)
    assert draws
    found = {}
    for each in measures:
        if isinstance(each, RewardMeasure):
            assert judged
            found[each.name] = reward(each, draws, judged)
        elif isinstance(each, VerifiedMeasure):
            assert prompts
            found[each.name] = verified(each, draws, prompts, judged, task.run.root)
    return found


def _asked(task: Task, measures: list[Any], number: str, prefix: str) -> dict[str, Any]:
    """The scores of measures for which a model has to generate text."""
    from ..evaluation.evaluate import measure

    def keep(scores: dict[str, Any]) -> None:
        if task.leads:
            task.known["kept"].update({prefix + name: score for name, score in scores.items()})
            text = json.dumps(task.known["kept"]).encode()
            write_by(task.work / KEPT, lambda file: file.write(text))

    known = task.known["kept"].items()
    done = {name.removeprefix(prefix): each for name, each in known if name.startswith(prefix)}
    job = task.job
    with disk(task.work / KEPT):
        return measure(
            measures,
            task.inputs[f"export{number}" if number else "model"],
            root=task.run.root,
            mesh=job.resources,
            context=job.generation.context if job.generation else None,
            peers=task.run.peers,
            done=done,
            keep=keep,
        )
