"""`etude status`: shows the progress of a run."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import open_run, too_long
from .screen import say
from .tables import Column, Row, show
from .watch import follow

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.outcomes import Outcome
    from ..runtime.run_folder.store import Store


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude status` to its parser."""
    parser.add_argument("folder", metavar="FOLDER")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as JSON")
    how.add_argument(
        "--watch", action="store_true", help="follow the run until it ends, as `etude watch`"
    )


def run(args: Namespace) -> int:
    if args.watch:
        return follow(args.folder)
    from ..runtime.data.order.long import counted
    from ..runtime.preparation.repetition import readings
    from ..runtime.run_folder.outcomes import outcomes
    from ..runtime.run_folder.profiles import profiles
    from .status_watch import Look, as_json, headline

    opened = open_run(args.folder)
    if opened is None:
        return 1
    plan, store = opened
    look = Look(plan, store)
    now = look.now()
    begun = outcomes(plan, store)
    rows = [_row(plan, job, begun.get(job.id)) for job in plan.jobs]
    made = _made(plan, store)
    for row in rows:
        if row["kind"] == "train":
            row |= _last_step(store, row["job"], begun.get(row["job"]))
        if row["kind"] == "dataset" and row["job"] in made:
            row |= counted(made[row["job"]])
    keys = {job.id: job.key for job in plan.jobs}
    read = readings(plan, {keys[job]: folder for job, folder in made.items()})
    if args.json:
        part = plan.part and plan.part.model_dump(mode="json")
        of = {"recipe": plan.recipe, "part": part, "progress": as_json(now)}
        traces = {stage: [str(p) for p in paths] for stage, paths in profiles(store.folder).items()}
        shown = of | {"jobs": rows, "readings": [asdict(each) for each in read]}
        shown |= {"profiles": traces} if traces else {}
        print(json.dumps(shown, indent=2))
        return 0
    say(headline(now, look.launch), rest="  ")
    if now.help:
        say(now.help, first="  = help: ", rest=" " * 10)
    shown = []
    for row in rows:
        if row["conditional"] and row["state"] in ("waiting", "not asked for"):
            continue
        step = f"{row.get('step', 0):,} of {row['steps']:,}" if row["steps"] else ""
        loss = f"{row['loss']:.4f}" if "loss" in row else ""
        state = f"{row['state']}, {row['made']}" if row["made"] else row["state"]
        shown.append(Row((row["job"], row["kind"], state, step, loss)))
    names = [Column(name) for name in ("job", "kind", "state")]
    show([*names, Column("step", right=True), Column("loss", right=True)], [shown])
    _say_more(plan, store, rows)
    for each in read:
        say(f"{'warning: ' if each.much else ''}{each}", rest="  ")
    return 0


def _say_more(plan: "Plan", store: "Store", rows: list[dict[str, Any]]) -> None:
    """What the table of jobs has no place for."""
    from ..compiler.plan.part import options
    from ..runtime.run_folder.profiles import profiles
    from ..spec.quantity import counted
    from .progress import evaluated

    for row in rows:
        if measured := row.get("evaluation"):
            say(f"{row['job']}: {evaluated(measured)}", rest="  ")
        long = row.get("long")
        if long and (long["dropped"] or long["truncated"]):
            say(f"{row['job']}: {too_long(long)}", rest="  ")
    if plan.part:
        left = f"{len(plan.part.left_out)} jobs of the plan are left out"
        say(f"a part of the plan:{options(plan)}; {left}", rest="  ")
    for stage, paths in profiles(store.folder).items():
        say(
            f"{stage}: profiled, {counted(len(paths), 'files')} in {paths[0].parent}",
            rest="  ",
        )


def _made(plan: "Plan", store: "Store") -> dict[str, Path]:
    """Job → folder of its result; {} if one is damaged, which the next run reports."""
    from ..runtime.errors import RunError
    from ..runtime.run_folder.outcomes import results

    try:
        return results(plan, store)
    except RunError:
        return {}


def _row(plan: "Plan", job: Any, outcome: "Outcome | None") -> dict[str, Any]:
    waiting = "awaited" if getattr(job, "awaited", False) else "waiting"
    waiting = "not asked for" if plan.aside(job) else waiting
    return {
        "job": job.id,
        "kind": job.kind,
        "state": outcome.state if outcome else waiting,
        "made": (outcome and outcome.elsewhere(plan, job.id)) or None,
        "steps": job.steps,
        "tokens": job.tokens,
        "conditional": job.extends is not None,
    }


def _last_step(store: "Store", job: str, outcome: "Outcome | None") -> dict[str, Any]:
    from ..runtime.run_folder.outcomes import evaluations, steps

    lines = steps(store, job, outcome)
    if not lines:
        return {}
    first, last = lines[0], lines[-1]
    row = {"step": last["step"] - first["step"] + 1, "loss": last["loss"], "lr": last.get("lr")}
    if found := evaluations(store, job, outcome):
        row["evaluation"] = {n: found[-1][n] for n in ("step", "tokens", "scores")}
    return row
