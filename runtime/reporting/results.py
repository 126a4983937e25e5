"""The results of a run, by kinds: training, data, evaluations, gates, samples, choices."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...compiler.plan.describe import MEASURED
from ...compiler.plan.describe import results as results_of
from ...compiler.plan.plan import Plan
from ..data.order.long import counted, left_out
from ..errors import RunError
from ..preparation.repetition import readings
from ..run_folder.outcomes import Outcome, evaluations, steps
from ..run_folder.profiles import profiles
from ..run_folder.progress import data_share, typical
from ..run_folder.store import Store

STEPS = 10
"""Training figures are means over this many last steps."""
SIDES = ("right_accuracy", "wrong_accuracy")
"""The accuracies on right and on wrong steps."""
FIGURES = ("loss", "accuracy", *SIDES, "margin", "nll", "reward", "chosen_reward")
FIGURES += ("rejected_reward",)
SECTIONS = ("stages", "data", "evaluations", "gates", "samples", "best")


def gather(
    plan: Plan, store: Store, outcomes: dict[str, Outcome], results: dict[str, Path]
) -> dict[str, Any]:
    """The results of a run: lists of stages, data sets with omissions, evaluations, gates, samples
    and choices, each in the plan's order.

    Args:
        outcomes: job → its outcome.
        results: job → folder of its result.
    """
    found: dict[str, Any] = {"recipe": plan.recipe, "title": plan.title}
    found |= {name: [] for name in SECTIONS}
    # The plan's file has its stages by name, but its jobs in the order in which they run.
    trains = [job for job in plan.jobs if job.kind == "train"]
    # What a part starts from is of other runs, which may have left nothing here to report.
    of_part = [job for job in trains if not plan.aside(job) or job.id in outcomes]
    for stage in dict.fromkeys(job.stage for job in of_part):
        found["stages"].append(_trained(plan, store, str(stage), outcomes))
    keys = {job.id: job.key for job in plan.jobs}
    passes: dict[str, dict[str, float]] = {}
    for each in readings(plan, {keys[job]: folder for job, folder in results.items()}):
        passes.setdefault(each.stage, {})[each.source] = each.times
    for row in found["stages"]:
        if row["stage"] in passes:
            row["passes"] = passes[row["stage"]]
    names = results_of(plan)
    for job in plan.jobs:
        if job.kind in _FOUND and (result := results.get(job.id)) is not None:
            section, read = _FOUND[job.kind]
            try:
                row = read(job, result, names)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
                raise RunError(
                    f"the result of `{job.id}` in {result} is not what was written",
                    "remove the folder; the next run rebuilds it",
                ) from problem
            if row is not None:
                found[section].append(row)
    return found


def _about(job: Any) -> dict[str, Any]:
    return {"job": job.id, "stage": job.stage}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _evaluation(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    of = next((names.get(job.inputs[role]) for role in MEASURED if role in job.inputs), None)
    scores = _json(result / "scores.json")
    for score in scores.values():
        _ = score["score"] + 0.0
    return _about(job) | {"of": of, "scores": scores}


def _gate(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    verdict = _json(result / "verdict.json")
    said = {name: verdict[name] for name in ("passed", "requirements")}
    return _about(job) | {"what": job.what, "attempt": job.attempt} | said


def _data(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any] | None:
    counts = counted(result)
    return {"job": job.id, "dataset": job.name} | counts if left_out(counts) else None


def _samples(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    return _about(job) | _json(result / "summary.json")


def _choice(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    verdict = _json(result / "verdict.json")
    for each in verdict["scores"]:
        _ = each["score"] + 0.0, each["stage"] + "", verdict["index"] + 0, verdict["measure"] + ""
    return _about(job) | verdict


_FOUND: dict[str, tuple[str, Callable[[Any, Path, Mapping[str, str]], dict[str, Any] | None]]] = {
    "evaluate": ("evaluations", _evaluation),
    "gate": ("gates", _gate),
    "dataset": ("data", _data),
    "sample": ("samples", _samples),
    "best": ("best", _choice),
}
"""Kind of a job → the section with its result, and the function that reads it, from the job, the
folder of the result, and the names of results by their keys."""


def _trained(plan: Plan, store: Store, stage: str, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """The results of training a stage, and which other runs did some of it."""
    jobs = [job for job in plan.jobs if job.kind == "train" and job.stage == stage]
    begun = {job.id: outcomes[job.id] for job in jobs if job.id in outcomes}
    needed = {job.id for job in jobs if job.extends is None}
    finished = {job for job, outcome in begun.items() if outcome.state == "finished"}
    state = "finished" if needed <= finished else "started" if begun else "waiting"
    lines = [line for job, outcome in begun.items() for line in steps(store, job, outcome)]
    others = dict.fromkeys(outcome.elsewhere(plan, job) for job, outcome in begun.items())
    row: dict[str, Any] = {
        "stage": stage,
        "kind": plan.stages[stage].kind,
        "state": state,
        "steps": len(lines),
        "tokens": lines[-1].get("tokens", 0) if lines else 0,
    }
    events = [event for event in store.events() if event["job"] in begun]
    for kind, column in (("spike", "spikes"), ("rollback", "rollbacks")):
        # A run that was resumed tells again of what it repeats.
        told = {(e["job"], e["detail"]["step"]) for e in events if e["event"] == kind}
        if told:
            row[column] = len(told)
    if made := "; ".join(filter(None, others)):
        row["made"] = made
    if speed := _speed(jobs, lines):
        row["speed"] = speed
    if found := [line for job, of in begun.items() for line in evaluations(store, job, of)]:
        row |= _evaluated(jobs, found)
    if traces := profiles(store.folder).get(stage):
        row["profiles"] = [str(path) for path in traces]
    last = lines[-STEPS:]
    for name in FIGURES:
        values = [line[name] for line in last if line.get(name) is not None]
        if values:
            row[name] = sum(values) / len(values)
    return row


def _evaluated(jobs: list[Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """The evaluations inside a stage, and the step whose checkpoint is its result, if a loss has
    chosen it: `evaluations`, `kept`; `ended` is the step at which a loss ended the stage early."""
    row: dict[str, Any] = {
        "evaluations": [
            {"step": each["step"] + 1} | {n: each[n] for n in ("tokens", "scores")}
            for each in found
        ]
    }
    best = [each["step"] + 1 for each in found if each.get("best")]
    if best and any(job.choice and job.choice.best for job in jobs):
        row["kept"] = best[-1]
    if found[-1].get("ends"):
        row["ended"] = found[-1]["step"] + 1
    return row


def _speed(jobs: list[Any], lines: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the steps of a stage, beside the plan's estimates; {} without steps.

    `tokens_per_second` is of a rank, `mfu` a share of the peak, `data` the share of the time in
    which rank 0 waited for data, and `memory` GiB of a GPU.
    """
    known = {job.id: job for job in jobs}
    told = [line for line in lines if line.get("job") in known and line.get("tokens_per_second")]
    each = [
        {
            "tokens_per_second": line["tokens_per_second"] / job.resources.world_size,
            "planned_tokens_per_second": job.cost.tokens_per_second,
            "mfu": line.get("mfu"),
            "planned_mfu": job.cost.mfu,
            "memory": line.get("memory_reserved"),
        }
        for line in told
        for job in [known[line["job"]]]
    ]
    names = each[0] if each else ()
    found = {name: typical(each, name) for name in names} | {"data": data_share(told)}
    return {name: value for name, value in found.items() if value is not None}
