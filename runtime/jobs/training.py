"""Jobs of all ranks: training, and passes over data without training."""

import json
from dataclasses import asdict
from typing import Any

from ..preparation.repetition import ALLOWED, advice, of_stage, rows
from ..run_folder.variant_folders import begun, rolled_back
from .task import Task


def begin(task: Task) -> None:
    """Reports how often data are read, and takes over figures of steps from another run."""
    _tell_repetition(task)
    job, run = task.job, task.run
    steps = begun(run.store.folder, task.key)
    if steps and run.recorder:
        run.recorder.take_up(job.id, job.stage or "", steps)


def _tell_repetition(task: Task) -> None:
    """Reports once how often the job's stage reads each source whose data exist by now."""
    job, run = task.job, task.run
    stage = job.stage or job.id
    sources = [name for name in job.data if (stage, name) not in run.told]
    made = {job.inputs[f"data:{name}"]: task.inputs[f"data:{name}"] for name in sources}
    allowed = any(found.code in ALLOWED for found in run.plan.silenced)
    for each in of_stage(stage, run.trained[stage], made, rows(run.plan, stage)):
        run.told.add((each.stage, each.source))
        run.emit({"event": "reading", **asdict(each), "message": str(each)})
        if each.much and not allowed:
            run.emit({"event": "warning", "message": f"{each}: {advice(each)}"})


def known(task: Task) -> dict[str, Any]:
    """Where the job begins to read each source, if not where the plan says, and how often it has
    gone back at spikes."""
    goes_back = task.job.spikes is not None and task.job.spikes.do == "rollback"
    back = rolled_back(task.run.store.folder, task.key) if goes_back else []
    return {"positions": _positions(task), "rollbacks": back}


def _positions(task: Task) -> dict[str, int] | None:
    found = None
    if "model" in task.inputs and (task.inputs["model"] / "positions.json").exists():
        found = json.loads((task.inputs["model"] / "positions.json").read_text())
        if task.job.objective.name != "next_token":  # each stage reads its records from the start
            found = {n: place for n, place in found.items() if n not in task.job.data}
    return found


def train(task: Task) -> None:
    """Trains on the ranks of the job's mesh."""
    from ..engine.train import train
    from ..engine.updates.rollbacks import Rollback

    job, run = task.job, task.run
    train(
        job,
        task.inputs,
        task.work,
        root=run.store.folder,
        on_event=lambda event: told(task, event),
        positions=task.known["positions"],
        rollbacks=[Rollback.of(each) for each in task.known["rollbacks"]],
    )


def told(task: Task, event: dict[str, Any]) -> None:
    """Passes on what a trainer tells: steps and evaluations, which are recorded, spikes and
    rollbacks, which are kept in the journal, and notes and warnings."""
    run = task.run
    assert run.recorder
    if event["event"] == "step":
        run.recorder.step(event)
    elif event["event"] == "evaluation":
        run.recorder.evaluation(event)
    elif event["event"] == "rollback":
        run.recorder.go_back()
    run.emit(event)
    if event["event"] in ("spike", "rollback"):
        names = ("number", "step", "to", "grad_norm", "usual")
        about = {name: event[name] for name in names if name in event}
        run.store.record(task.job.id, task.key, event["event"], about)
        run.emit({"event": "warning", "message": event["message"]})


def finish(task: Task) -> None:
    """Copies the figures of all steps and evaluations next to the result."""
    assert task.run.recorder
    task.run.recorder.hand_over(task.job.id, task.work / "result")


def take_over(task: Task) -> None:
    """Takes over the figures next to a result."""
    assert task.run.recorder
    task.run.recorder.take_over(task.job.id, task.job.stage or "", task.work)


def reference(task: Task) -> None:
    """Computes log-probabilities of responses."""
    from ..engine.measures.forward import reference

    run = task.run
    reference(task.job, task.inputs, task.work, root=run.store.folder, on_event=run.emit)


def teach(task: Task) -> None:
    """Keeps a teacher's probabilities of tokens."""
    from ..engine.measures.teaching import teach

    run = task.run
    teach(task.job, task.inputs, task.work, root=run.store.folder, on_event=run.emit)


def likelihood(task: Task) -> None:
    """Computes log-probabilities of each token of answers."""
    from ..engine.measures.likelihood import likelihood

    run = task.run
    likelihood(task.job, task.inputs, task.work, root=run.store.folder, on_event=run.emit)


def held_out(task: Task) -> None:
    """Measures losses and accuracies on held-out data."""
    from ..engine.measures.forward import held_out

    run = task.run
    held_out(task.job, task.inputs, task.work, root=run.store.folder, on_event=run.emit)


def judge(task: Task) -> None:
    """Scores answers with a reward model."""
    from ..engine.measures.forward import judge
    from ..sampling.judging import Answered

    run = task.run
    answers = Answered(task.job, task.inputs, run.root)
    judge(task.job, answers, task.inputs, task.work, root=run.store.folder, on_event=run.emit)


def score(task: Task) -> None:
    """Computes the cross-entropy of documents."""
    from ..engine.measures.forward import score

    run = task.run
    score(task.job, task.inputs, task.work, root=run.store.folder, on_event=run.emit)
