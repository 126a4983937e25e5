"""`etude report`: what a run has found out, as tables over its stages."""

import json
from argparse import ArgumentParser, Namespace
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
"""How many of the last steps figures of training are means over."""

FIGURES = ("loss", "accuracy", "margin", "nll", "chosen_reward", "rejected_reward")
SECTIONS = ("stages", "data", "evaluations", "gates", "samples", "best")
LEFT_OUT = ("bad lines", "limit", "dropped", "truncated", "too similar")
SAMPLED = ("prompts", "draws", "finished", "reward", "kept", "kept_reward", "pairs")


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
    """What is known of a run: lists of stages, data sets of which something was left out,
    evaluations, gates, samples and choices, each in the plan's order.

    Args:
        outcomes: job → what has become of it.
        results: job → folder of its result.
    """
    from ..runtime.data.long import counted, left_out
    from ..runtime.preparation.repetition import readings

    exported = {job.key: job.stage for job in plan.jobs if job.kind == "export"}
    found: dict[str, Any] = {"recipe": plan.recipe, "title": plan.title}
    found |= {name: [] for name in SECTIONS}
    # The plan's file has its stages by name, its jobs in the order in which they run.
    for stage in dict.fromkeys(job.stage for job in plan.jobs if job.kind == "train"):
        found["stages"].append(_trained(plan, store, str(stage), outcomes))
    keys = {job.id: job.key for job in plan.jobs}
    passes: dict[str, dict[str, float]] = {}
    for each in readings(plan, {keys[job]: folder for job, folder in results.items()}):
        passes.setdefault(each.stage, {})[each.source] = each.times
    for row in found["stages"]:
        if row["stage"] in passes:
            row["passes"] = passes[row["stage"]]
    for job in plan.jobs:
        result = results.get(job.id)
        if result is None:
            continue
        about = {"job": job.id, "stage": job.stage}
        if job.kind == "evaluate":
            scores = json.loads((result / "scores.json").read_text())
            of = exported.get(job.inputs.get("model", ""))
            found["evaluations"].append(about | {"of": of, "scores": scores})
        elif job.kind == "gate":
            verdict = json.loads((result / "verdict.json").read_text())
            found["gates"].append(
                about
                | {"what": job.what, "attempt": job.attempt, "passed": verdict["passed"]}
                | {"requirements": verdict["requirements"]}
            )
        elif job.kind == "dataset":
            counts = counted(result)
            if left_out(counts):
                found["data"].append({"job": job.id, "dataset": job.name} | counts)
        elif job.kind == "sample":
            found["samples"].append(about | json.loads((result / "summary.json").read_text()))
        elif job.kind == "best":
            found["best"].append(about | json.loads((result / "verdict.json").read_text()))
    return found


def _trained(
    plan: "Plan", store: "Store", stage: str, outcomes: "dict[str, Outcome]"
) -> dict[str, Any]:
    """What training a stage came to, and which other runs have done some of it."""
    from ..runtime.run_folder.outcomes import steps

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
    if made := "; ".join(filter(None, others)):
        row["made"] = made
    last = lines[-STEPS:]
    for name in FIGURES:
        values = [line[name] for line in last if line.get(name) is not None]
        if values:
            row[name] = sum(values) / len(values)
    return row


def _show(found: dict[str, Any]) -> None:
    _table(
        f"Training (means of the last {STEPS} steps)",
        [
            "stage",
            "kind",
            "state",
            "steps",
            "tokens",
            *_present(found["stages"], (*FIGURES, "passes", "made")),
        ],
        found["stages"],
    )
    left_out = [_left_out(row) for row in found["data"]]
    _table("Records left out", ["dataset", *_present(left_out, LEFT_OUT)], left_out)
    scored = [
        {"stage": row["job"], "of": row["of"]}
        | {name: score["score"] for name, score in row["scores"].items()}
        for row in found["evaluations"]
    ]
    measures = dict.fromkeys(name for row in found["evaluations"] for name in row["scores"])
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


def _left_out(row: dict[str, Any]) -> dict[str, Any]:
    """How many records of a data set are not there, or not whole, by the reason."""
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
