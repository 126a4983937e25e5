"""`etude report`: shows the results of a run, as tables over its stages."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec.quantity import measured
from .common import open_run, problem
from .tables import Column, Row, show

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.outcomes import Outcome
    from ..runtime.run_folder.store import Store

STEPS = 10
"""Training figures are means over this many last steps."""

FIGURES = ("loss", "accuracy", "margin", "nll", "reward", "chosen_reward", "rejected_reward")
SECTIONS = ("stages", "data", "evaluations", "gates", "samples", "best")
LEFT_OUT = ("bad lines", "limit", "dropped", "truncated", "too similar")
SAMPLED = ("prompts", "draws", "finished", "right", "reward", "kept", "kept_reward", "pairs")


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude report` to its parser."""
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError
    from ..runtime.run_folder.outcomes import outcomes, results

    opened = open_run(args.folder)
    if opened is None:
        return 1
    (plan, store), folder = opened, args.folder
    try:
        found = gather(plan, store, outcomes(plan, store), results(plan, store))
    except RunError as reason:
        problem(reason.message, reason.help)
        return 1
    except (OSError, ValueError, KeyError) as reason:
        problem(
            f"the results in {folder} cannot be read: {reason}",
            "remove the folder of the result in artifacts/ and run the recipe again",
        )
        return 1
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0


def gather(
    plan: "Plan", store: "Store", outcomes: "dict[str, Outcome]", results: dict[str, Path]
) -> dict[str, Any]:
    """The results of a run: lists of stages, data sets with omissions, evaluations, gates, samples
    and choices, each in the plan's order.

    Args:
        outcomes: job → its outcome.
        results: job → folder of its result.
    """
    from ..compiler.plan.describe import results as results_of
    from ..runtime.preparation.repetition import readings

    found: dict[str, Any] = {"recipe": plan.recipe, "title": plan.title}
    found |= {name: [] for name in SECTIONS}
    # The plan's file has its stages by name, but its jobs in the order in which they run.
    for stage in dict.fromkeys(job.stage for job in plan.jobs if job.kind == "train"):
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
            row = read(job, result, names)
            if row is not None:
                found[section].append(row)
    return found


def _about(job: Any) -> dict[str, Any]:
    return {"job": job.id, "stage": job.stage}


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _evaluation(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    from ..compiler.plan.describe import MEASURED

    of = next((names.get(job.inputs[role]) for role in MEASURED if role in job.inputs), None)
    return _about(job) | {"of": of, "scores": _json(result / "scores.json")}


def _gate(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    verdict = _json(result / "verdict.json")
    said = {name: verdict[name] for name in ("passed", "requirements")}
    return _about(job) | {"what": job.what, "attempt": job.attempt} | said


def _data(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any] | None:
    from ..runtime.data.long import counted, left_out

    counts = counted(result)
    return {"job": job.id, "dataset": job.name} | counts if left_out(counts) else None


def _samples(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    return _about(job) | _json(result / "summary.json")


def _choice(job: Any, result: Path, names: Mapping[str, str]) -> dict[str, Any]:
    return _about(job) | _json(result / "verdict.json")


_FOUND: dict[str, tuple[str, Callable[[Any, Path, Mapping[str, str]], dict[str, Any] | None]]] = {
    "evaluate": ("evaluations", _evaluation),
    "gate": ("gates", _gate),
    "dataset": ("data", _data),
    "sample": ("samples", _samples),
    "best": ("best", _choice),
}
"""Kind of a job → the section with its result, and the function that reads it, from the job, the
folder of the result, and the names of results by their keys."""


def _trained(
    plan: "Plan", store: "Store", stage: str, outcomes: "dict[str, Outcome]"
) -> dict[str, Any]:
    """The results of training a stage, and which other runs did some of it."""
    from ..runtime.run_folder.outcomes import steps
    from ..runtime.run_folder.profiles import profiles

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
        "tokens": lines[-1]["tokens"] if lines else 0,
    }
    spikes = {
        (event["job"], event["detail"]["step"])
        for event in store.events()
        if event["event"] == "spike" and event["job"] in begun
    }
    if spikes:
        row["spikes"] = len(spikes)
    if made := "; ".join(filter(None, others)):
        row["made"] = made
    if speed := _speed(jobs, lines):
        row["speed"] = speed
    if traces := profiles(store.folder).get(stage):
        row["profiles"] = [str(path) for path in traces]
    last = lines[-STEPS:]
    for name in FIGURES:
        values = [line[name] for line in last if line.get(name) is not None]
        if values:
            row[name] = sum(values) / len(values)
    return row


def _speed(jobs: list[Any], lines: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the steps of a stage, beside the plan's estimates; {} without steps.

    `tokens_per_second` is of a rank, `mfu` a share of the peak, `data` the share of the time in
    which rank 0 waited for data, and `memory` GiB of a GPU.
    """
    from ..runtime.run_folder.progress import data_share, typical

    known = {job.id: job for job in jobs}
    told = [line for line in lines if line.get("job") in known and "tokens_per_second" in line]
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


SPEED = {
    "tokens_per_second": "tokens/s a rank",
    "planned_tokens_per_second": "planned",
    "mfu": "MFU",
    "planned_mfu": "planned MFU",
    "data": "waiting for data",
    "memory": "GiB of a GPU",
}
"""A figure of a stage's speed → its column."""
_SHARES = ("mfu", "planned_mfu", "data")


def _speeds(stages: list[dict[str, Any]]) -> None:
    rows = [
        {"stage": row["stage"]}
        | {
            SPEED[name]: f"{value:.1%}" if name in _SHARES else float(f"{value:.4g}")
            for name, value in row["speed"].items()
        }
        for row in stages
        if "speed" in row
    ]
    _table("Speed (medians over steps)", ["stage", *_present(rows, tuple(SPEED.values()))], rows)


def _show(found: dict[str, Any]) -> None:
    _table(
        f"Training (means of the last {STEPS} steps)",
        [
            "stage",
            "kind",
            "state",
            "steps",
            "tokens",
            *_present(found["stages"], (*FIGURES, "spikes", "passes", "made")),
        ],
        found["stages"],
    )
    _speeds(found["stages"])
    for row in found["stages"]:
        for path in row.get("profiles", ()):
            print(f"profile of {row['stage']}: {path}")
    left_out = [_left_out(row) for row in found["data"]]
    _table("Records left out", ["dataset", *_present(left_out, LEFT_OUT)], left_out)
    scored = [
        {"stage": row["job"], "of": row["of"]} | _figures(row["scores"])
        for row in found["evaluations"]
    ]
    measures = dict.fromkeys(name for row in scored for name in row if name not in ("stage", "of"))
    _table("Evaluations", ["stage", "of", *measures], scored)
    gates = [
        {
            "gate": row["job"],
            "of": row["what"],
            **requirement,
            "wanted": f"{requirement['op']} {_cell(requirement['wanted'])}",
            "passed": "yes" if requirement["passed"] else "no",
        }
        for row in found["gates"]
        for requirement in row["requirements"]
    ]
    _table("Gates", ["gate", "of", "measure", "score", "wanted", "passed"], gates)
    _table("Samples", ["stage", *_present(found["samples"], SAMPLED)], found["samples"])
    chosen = [
        {
            "stage": row["stage"],
            "measure": row["measure"],
            "of": each["stage"],
            "score": each["score"],
            "best": "yes" if place == row["index"] else "",
        }
        for row in found["best"]
        for place, each in enumerate(row["scores"])
    ]
    _table("Choices", ["stage", "measure", "of", "score", "best"], chosen)
    if not any(found[name] for name in SECTIONS):
        print("nothing to report yet")


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of an evaluation: those of verifiers with their standard error and pass@k, those
    of several answers with the best of k."""
    found: dict[str, Any] = {}
    for name, score in scores.items():
        shown = found[name] = score["score"]
        if score.get("stderr") is not None:
            found[name] = f"{_cell(shown)} ± {_cell(score['stderr'])}"
        of = name.partition("(")[2].rstrip(")")
        for what, mark in (("pass", "pass@"), ("best_of", "best of ")):
            for k, value in score.get(what, {}).items():
                if k != "1":  # the score itself
                    found[f"{mark}{k} ({of})"] = value
    return found


def _left_out(row: dict[str, Any]) -> dict[str, Any]:
    """How many records of a data set are missing or incomplete, by reason."""
    long = row.get("long") or {}
    return {
        "dataset": row["dataset"],
        "bad lines": row.get("bad_lines"),
        "limit": long.get("limit"),
        "dropped": long.get("dropped"),
        "truncated": long.get("truncated"),
        "too similar": (row.get("similar") or {}).get("records"),
    }


def _present(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def _table(title: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    print(title)
    numeric = [any(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    show(
        [Column(name, right=right) for name, right in zip(columns, numeric, strict=True)],
        [[Row([_cell(row.get(name)) for name in columns]) for row in rows]],
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return measured(value, 4)
    if isinstance(value, dict):
        return ", ".join(f"{name} {measured(number)}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
