"""`etude sweep --on`: queues the points of a sweep on a cluster, and once what they share."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..compiler.plan.apart import strands
from .launch import engine_of, requested, require_ready
from .report import show_table
from .report_tables import Table
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.engine import Engine, Strand


def launch(plans: "Mapping[str, Plan]", args: Namespace) -> int:
    """Shows what would be queued, or queues it with `--submit`; returns the exit code.

    Args:
        plans: the points of the sweep, by the names of their variants.

    Raises: RunError: a point does not fit the cluster, or it has a part of the sweep already;
        nothing was queued.
    """
    from ..runtime.launchers import sites
    from ..runtime.preparation.counting import require_exact

    for plan in plans.values():
        require_exact(plan)
    engine = engine_of(args.on)
    found = _strands(engine, plans, args, sites.find(args.site))
    # Of all points, so that nothing is queued if one does not fit.
    pieces = {each.name: engine.pieces(each.request) for each in found}
    if not args.submit:
        if args.json:
            texts = {name: {p.name: p.text for p in made} for name, made in pieces.items()}
            print(json.dumps({"event": "sweep", "queue": texts}))
        else:
            _show(found)
        return 0
    told: set[str] = set()
    for each in found:
        require_ready(engine, each.request, told)
    lines = engine.submit_all(found)
    if args.json:
        folders = {each.name: each.request.address for each in found}
        print(json.dumps({"event": "sweep", "folders": folders, "queued": list(lines)}))
        return 0
    for line in lines:
        print(line)
    last = found[-1].request
    if engine.shares_folder or last.url:
        say(
            f"etude status {last.address} shows the progress of a point; once all have ended, the "
            "same command without --on shows the table",
            rest="  ",
        )
    return 0


def _strands(
    engine: "Engine", plans: "Mapping[str, Plan]", args: Namespace, site: Path | None
) -> "list[Strand]":
    """What is queued, in an order in which it can run."""
    from ..runtime.launchers.engine import Strand

    found = strands(plans)
    made = [Strand(s.name, requested(engine, s.plan, args, site), s.after) for s in found]
    if not any(each.request.url for each in made):
        return made
    # A store has one run at a time.
    follow = {later.name: (before.name,) for before, later in pairwise(made)}
    return [Strand(s.name, s.request, follow.get(s.name, ())) for s in made]


def _show(found: "Sequence[Strand]") -> None:
    rows = [
        {
            "run": each.name,
            "phases": ", ".join(phase.name for phase in each.request.plan.phases),
            "after": ", ".join(each.after),
        }
        for each in found
    ]
    show_table(Table("Queue", ["run", "phases", "after"], rows))
