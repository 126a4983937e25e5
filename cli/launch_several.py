"""`etude sweep --on` and `etude launch --variant all`: queue the points of a sweep, or a recipe and
all of its variants, on a cluster, and once what they share."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..compiler.plan.apart import strands
from .common import compile_file, findings, problem, show
from .queueing import engine_of, requested, require_ready
from .report import show_table
from .report_tables import Table
from .screen import say
from .several import has_all

if TYPE_CHECKING:
    from ..compiler.plan.apart import Strand as Part
    from ..compiler.plan.plan import Plan
    from ..runtime.launchers.engine import Engine, Strand


def launch_variants(args: Namespace) -> int:
    """`etude launch SPEC --variant all`; returns the exit code.

    Raises: RunError: see `launch`.
    """
    for option in ("until", "since", "only"):
        if getattr(args, option):
            name = "from" if option == "since" else option
            problem(
                f"--variant all and --{name} do not go together",
                "launch the variants one by one, or all of them as a whole",
            )
            return 2
    recipe = _planned(args, None)
    if recipe is None or not has_all(recipe, args):
        return 1
    plans = {"": recipe}
    for name in recipe.variants:
        plan = _planned(args, name)
        if plan is None:
            return 1
        plans[name] = plan
    return launch(plans, args, "variants")


def _planned(args: Namespace, variant: str | None) -> "Plan | None":
    """The plan of a variant, or of the recipe; None after the errors. The recipe's warnings are
    those of its variants, mostly, and shown once."""
    plan, report = compile_file(
        args.file, None, variant=variant, sets=args.set, miniature=args.miniature
    )
    if plan is None or report.errors:
        print(findings([report])) if args.json else show(report)
        return None
    if variant is None:
        show(report)
    return plan


def launch(plans: "Mapping[str, Plan]", args: Namespace, what: str) -> int:
    """Shows what would be queued, or queues it with `--submit`; returns the exit code.

    Args:
        plans: plans of one recipe, by their variants; "" is the recipe itself.
        what: these are, "sweep" or "variants".

    Raises: RunError: a plan does not fit the cluster, or the cluster has a part of it already;
        nothing was queued.
    """
    from ..runtime.launchers import sites
    from ..runtime.preparation.counting import require_exact

    for plan in plans.values():
        require_exact(plan)
    engine = engine_of(args.on)
    found = _strands(engine, strands(plans, f"{what}_shared"), args, sites.find(args.site))
    # Of all plans, so that nothing is queued if one does not fit.
    pieces = {each.name: engine.pieces(each.request) for each in found}
    if not args.submit:
        if args.json:
            texts = {name: {p.name: p.text for p in made} for name, made in pieces.items()}
            print(json.dumps({"event": what, "queue": texts}))
        else:
            _show(found)
        return 0
    told: set[str] = set()
    for each in found:
        require_ready(engine, each.request, told)
    lines = engine.submit_all(found)
    if args.json:
        folders = {each.name: each.request.address for each in found}
        print(json.dumps({"event": what, "folders": folders, "queued": list(lines)}))
        return 0
    for line in lines:
        print(line)
    last = found[-1].request
    if engine.shares_folder or last.url:
        say(f"etude status {last.address} shows the progress of {_AFTER[what]}", rest="  ")
    return 0


_AFTER = {
    "sweep": "a point; once all have ended, the same command without --on shows the table",
    "variants": "a variant; once all have ended, `etude run` with --variant all compares them",
}


def _strands(
    engine: "Engine", found: "Sequence[Part]", args: Namespace, site: Path | None
) -> "list[Strand]":
    """What is queued, in an order in which it can run."""
    from ..runtime.launchers.engine import Strand

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
