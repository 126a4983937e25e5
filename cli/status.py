"""`etude status`: how far a run is."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import colors, open_run, too_long

if TYPE_CHECKING:
    from ..compiler.plan import Plan
    from ..runtime.store import Store


def run(arguments: Namespace) -> int:
    from ..runtime.data.long import counted
    from ..runtime.scheduler import done

    opened = open_run(arguments.folder)
    if opened is None:
        return 1
    (plan, store), folder = opened, Path(arguments.folder)
    states = done(plan, store)
    rows: list[dict[str, Any]] = [
        {
            "job": job.id, "kind": job.kind, "state": states.get(job.id, _not_begun(job)),
            "steps": job.steps, "tokens": job.tokens, "conditional": job.extends is not None,
        }
        for job in plan.jobs
    ]  # fmt: skip
    made = _made(plan, store)
    for row in rows:
        row |= _last_step(folder, row["job"]) if row["kind"] == "train" else {}
        if row["kind"] == "dataset" and row["job"] in made:
            row |= counted(made[row["job"]])
    if arguments.json:
        print(json.dumps({"recipe": plan.recipe, "jobs": rows}, indent=2))
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    fancy = colors(sys.stdout)
    console = Console(
        no_color=not fancy, highlight=False, width=None if sys.stdout.isatty() else 120
    )
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else box.ASCII2, pad_edge=False)
    for name in ("job", "kind", "state", "step", "loss"):
        table.add_column(name)
    for row in rows:
        if row["conditional"] and row["state"] == "waiting":
            continue
        step = f"{row.get('step', 0):,} of {row['steps']:,}" if row["steps"] else ""
        loss = f"{row['loss']:.4f}" if "loss" in row else ""
        table.add_row(row["job"], row["kind"], row["state"], step, loss)
    console.print(table)
    for row in rows:
        long = row.get("long")
        if long and (long["dropped"] or long["truncated"]):
            print(f"{row['job']}: {too_long(long)}")
    return 0


def _made(plan: "Plan", store: "Store") -> dict[str, Path]:
    """Job → folder of its result; none where one is damaged, which the next run says."""
    from ..runtime.errors import RunError
    from ..runtime.scheduler import results

    try:
        return results(plan, store)
    except RunError:
        return {}


def _not_begun(job: Any) -> str:
    return "awaited" if getattr(job, "awaited", False) else "waiting"


def _last_step(folder: Path, job: str) -> dict[str, Any]:
    path = folder / "metrics" / f"{job}.jsonl"
    try:
        lines = path.read_text().splitlines()
        first, last = json.loads(lines[0]), json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return {"step": last["step"] - first["step"] + 1, "loss": last["loss"], "lr": last["lr"]}
