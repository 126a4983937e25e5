"""The figures of a run's steps over its tokens, few enough for a chart."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ...compiler.plan.describe import MEASURED
from ...compiler.plan.plan import EvaluateJob, GateJob, Plan, TrainJob
from ..run_folder.outcomes import Outcome, evaluations, steps
from ..run_folder.store import Store
from .results import FIGURES
from .stretches import Stretch

SHOWN = {
    "loss": "Loss",
    "mtp_loss": "Loss of further tokens",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "tokens_per_second": "Tokens a second",
    "mfu": "MFU",
    "memory_reserved": "Memory of a GPU, GiB",
    **{name: name.replace("_", " ").capitalize() for name in FIGURES[1:]},
    "nll": "Negative log-likelihood",
}
"""A step's figure → its chart's title. A chart is shown if any step has the figure."""
ROWS = 3000
"""The most rows of a run. Charts are about a thousand pixels wide, and of each stretch of steps the
rows with the lowest and the highest loss stay, so that no spike is lost."""
_OF = (*MEASURED, "of")
"""The roles of inputs that are a model, or are about one."""


def curves(
    plan: Plan,
    store: Store,
    outcomes: Mapping[str, Outcome],
    starts: Sequence[Stretch],
    most: int = ROWS,
) -> dict[str, Any]:
    """Figures over one axis: tokens of all training so far, in the plan's order.

    Args:
        starts: when jobs were at work, from which restarts are known.
        most: rows in all.

    Returns:
        stages: `name`, `from` and `to` on the axis, of stages that have trained.
        names: the figures that there are, as keys of `SHOWN`.
        rows: [place on the axis, number of the stage, step of the stage, and each figure, or None].
        held_out: name of a loss → [place on the axis, its value], of the evaluations in stages.
        marks: `at` on the axis, `kind` (gate, evaluation, restart, spike or rollback), `text`.
    """
    trained = [job for job in plan.jobs if isinstance(job, TrainJob) and job.id in outcomes]
    lines = {job.id: _whole(steps(store, job.id, outcomes[job.id])) for job in trained}
    stages: list[dict[str, Any]] = []
    ends: dict[str, int] = {}
    rows: list[tuple[int, int, Mapping[str, Any]]] = []
    for job in trained:
        name = str(job.stage)
        if lines[job.id] and (not stages or stages[-1]["name"] != name):
            at = stages[-1]["to"] if stages else 0
            stages.append({"name": name, "from": at, "to": at})
        for line in lines[job.id]:
            rows.append((stages[-1]["from"] + line["tokens"], len(stages) - 1, line))
        if lines[job.id]:
            stages[-1]["to"] = rows[-1][0]
            ends[job.key] = ends[job.id] = rows[-1][0]
    names = [name for name in SHOWN if any(line.get(name) is not None for _, _, line in rows)]
    return {
        "stages": stages,
        "names": names,
        "rows": [
            [at, stage, line["step"], *(_round(line.get(name)) for name in names)]
            for at, stage, line in _thinned(rows, most)
        ],
        "held_out": _held_out(store, trained, outcomes, stages),
        "marks": [
            *_measured(plan, outcomes, stages, ends),
            *_restarts(trained, starts, lines, stages),
            *_spikes(store, trained, lines, stages),
        ],
    }


def _whole(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "tokens" in line and "step" in line and "loss" in line]


def _thinned(
    rows: list[tuple[int, int, Mapping[str, Any]]], most: int
) -> list[tuple[int, int, Mapping[str, Any]]]:
    """The first and the last row, and of every stretch between the lowest and the highest loss."""
    if len(rows) <= most:
        return rows
    size = -(-2 * len(rows) // most)
    kept: set[int] = {0, len(rows) - 1}
    for start in range(0, len(rows), size):
        stretch = range(start, min(start + size, len(rows)))
        kept.add(min(stretch, key=lambda n: rows[n][2]["loss"]))
        kept.add(max(stretch, key=lambda n: rows[n][2]["loss"]))
    return [rows[n] for n in sorted(kept)]


def _measured(
    plan: Plan,
    outcomes: Mapping[str, Outcome],
    stages: list[dict[str, Any]],
    ends: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Gates at the end of their segment, evaluations at the end of the stage that they measure."""
    stage_ends = {stage["name"]: stage["to"] for stage in stages}
    of_key = {job.key: job for job in plan.jobs}

    @cache
    def end(key: str) -> int | None:
        """Where the training ends that a result is the last of, on the axis."""
        job = of_key.get(key)
        if job is None or isinstance(job, TrainJob):
            return None if job is None else ends.get(key, stage_ends.get(str(job.stage)))
        # A result that is not trained is of a model, or of several: averages, choices.
        inputs = [of for role, of in job.inputs.items() if role.partition(".")[0] in _OF]
        return max((place for of in inputs if (place := end(of)) is not None), default=None)

    found = []
    for job in plan.jobs:
        finished = job.id in outcomes and outcomes[job.id].state == "finished"
        if not finished or not isinstance(job, GateJob | EvaluateJob):
            continue
        gate = isinstance(job, GateJob)
        at = end(job.segment) if gate else end(job.key)
        if at is not None:
            kind = "gate" if gate else "evaluation"
            found.append({"at": at, "kind": kind, "text": f"{kind} {job.id.removeprefix('gate.')}"})
    return found


def _restarts(
    trained: Sequence[TrainJob],
    starts: Sequence[Stretch],
    lines: Mapping[str, list[dict[str, Any]]],
    stages: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Where jobs went on after the run had ended in the middle of them."""
    begins = {stage["name"]: stage["from"] for stage in stages}
    stage_of = {job.id: str(job.stage) for job in trained}
    found, seen = [], set()
    for start in starts:
        again, told = start.job in seen, lines.get(start.job, [])
        seen.add(start.job)
        if not again or start.step is None or not told:
            continue
        line = next((line for line in told if line["step"] >= start.step), told[-1])
        at = begins[stage_of[start.job]] + line["tokens"]
        text = f"{start.job} went on at step {start.step:,}"
        found.append({"at": at, "kind": "restart", "text": text})
    return found


def _spikes(
    store: Store,
    trained: Sequence[TrainJob],
    lines: Mapping[str, list[dict[str, Any]]],
    stages: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Where steps were not taken, and where training went back; each once, though a run that was
    resumed tells again of what it repeats."""
    begins = {stage["name"]: stage["from"] for stage in stages}
    stage_of = {job.id: str(job.stage) for job in trained}
    found = {}
    for event in store.events():
        kind, job = event["event"], event["job"]
        told = lines.get(job)
        if kind not in ("spike", "rollback") or not told:
            continue
        step = event["detail"]["step"]
        text = f"{job}, step {step:,}: a spike that was not taken"
        if kind == "rollback":
            text = f"{job} went back from step {step:,} to step {event['detail']['to']:,}"
        line = next((line for line in told if line["step"] >= step), told[-1])
        at = begins[stage_of[job]] + line["tokens"]
        found[text] = {"at": at, "kind": kind, "text": text}
    return [*found.values()]


def _held_out(
    store: Store,
    trained: Sequence[TrainJob],
    outcomes: Mapping[str, Outcome],
    stages: list[dict[str, Any]],
) -> dict[str, list[list[float]]]:
    """The losses that stages have measured while they trained."""
    begins = {stage["name"]: stage["from"] for stage in stages}
    found: dict[str, list[list[float]]] = {}
    for job in trained:
        for each in evaluations(store, job.id, outcomes[job.id]):
            for name, score in each["scores"].items():
                value = _round(score["score"])
                if value is not None and str(job.stage) in begins and "tokens" in each:
                    at = begins[str(job.stage)] + each["tokens"]
                    found.setdefault(name, []).append([at, value])
    return found


def _round(value: float | None) -> float | None:
    """Five digits, which no screen can tell from more; None for what JSON cannot say."""
    if value is None or value != value or abs(value) == float("inf"):
        return None
    return float(f"{value:.5g}")
