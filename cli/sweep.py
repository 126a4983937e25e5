"""`etude sweep`: runs a recipe at all combinations of some values, and compares the results."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.as_written import at_most, counted, measured
from . import options
from .common import compile_file, problem, show
from .queueing import ENGINES
from .report import MOST_RUNS, gathered, refused, show_table, write_page
from .report_tables import LOWER, Table
from .screen import say
from .sweep_law import scaling_law
from .sweep_points import EXAMPLE, Bad, Point, as_variants, in_words, points

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude sweep` to its parser."""
    parser.add_argument("file", metavar="SPEC")
    parser.add_argument("--over", required=True, metavar="VALUES", help=f"as in {EXAMPLE}")
    parser.add_argument("--dry-run", action="store_true", help="plan all points, and run none")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        type=float,
        metavar="FLOPS",
        help="show the optimum by the scaling law for a budget, such as 1e21; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page that compares the points")
    parser.add_argument("--folder", metavar="FOLDER", help="the run folder (default: runs/RECIPE)")
    options.ranks(parser)
    parser.add_argument(
        "--on", choices=tuple(ENGINES), help="queue it there, instead of running it here"
    )
    parser.add_argument("--site", metavar="SITE", help="a site file, or its name, for --on")
    parser.add_argument("--submit", action="store_true", help="queue it; else --on only shows it")


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError
    from .several import in_turn, refused_here
    from .work import failed

    if refused_here("sweep") or _refused(args):
        return 2
    try:
        found = points(args.over)
    except Bad as reason:
        problem(str(reason), reason.help)
        return 2
    if args.html and len(found) > MOST_RUNS:
        problem(
            f"a page compares at most {MOST_RUNS} runs, and these are {len(found)} points",
            "leave out --html, and name the best of them to `etude report --html`",
        )
        return 2
    if args.html and refused(Path(args.html)):
        return 2
    text = as_variants(found)
    plans = _planned(args, found, text)
    if plans is None:
        return 1
    if not args.json:
        _say_plans(found, plans)
    if args.dry_run and not args.on:
        if args.json:
            print(json.dumps({"event": "sweep", "points": _planned_points(found, plans)}))
        return 0
    if args.on:
        from .launch_several import launch

        try:
            return launch(plans, args, "sweep")
        except RunError as reason:
            return failed(reason, as_json=args.json)
    # What `etude run` takes besides.
    more = {"added": text, "miniature": False, "set": [], "command": "run"}
    more |= {"since": None, "until": None, "only": None}
    runs = in_turn(Namespace(**{**vars(args), **more}), [each.name for each in found])
    if isinstance(runs, int):
        return runs
    try:
        results = {each.name: gathered(each) for each in runs}
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    laws = scaling_law(list(plans.values()), list(results.values()), args.budget)
    shown = [_results(found, results), *laws]
    if args.json:
        told = {"event": "sweep", "points": _planned_points(found, plans)}
        tables = {table.title: table.rows for table in shown}
        print(json.dumps({**told, "tables": tables}))
    else:
        for table in shown:
            show_table(table)
    return write_page(runs, Path(args.html), shown) if args.html else 0


def _refused(args: Namespace) -> bool:
    """Whether options contradict each other; reports it."""
    if args.on is None and (args.site or args.submit):
        given = "--submit" if args.submit else "--site"
        problem(f"{given} belongs to --on", f"add where: --on {' | '.join(ENGINES)}")
        return True
    if args.on and args.ranks:
        problem("--ranks is for this machine, and --on for another", "leave out one of them")
        return True
    if args.on and args.html:
        problem(
            "--html needs the results, and --on only queues",
            "leave it out, and sweep again without --on once all points have ended",
        )
        return True
    if args.on and args.submit and args.dry_run:
        problem("--submit and --dry-run contradict each other", "leave out one of them")
        return True
    return False


def _planned(args: Namespace, found: Sequence[Point], text: str) -> "dict[str, Plan] | None":
    """The plan of each point; None after a message, if one cannot be planned. Nothing has run
    then."""
    plans: dict[str, Plan] = {}
    for point in found:
        plan, report = compile_file(args.file, args.ranks, variant=point.name, added=text)
        if plan is None:
            show(report)
            problem(
                f"the point {in_words(point)} cannot be planned, so nothing was run",
                "correct --over, or the spec",
            )
            return None
        plans[point.name] = plan
    return plans


def _say_plans(found: Sequence[Point], plans: "Mapping[str, Plan]") -> None:
    """What is to be trained: at each point, and in all, with what they share counted once."""
    rows: list[dict[str, Any]] = []
    for point in found:
        totals = plans[point.name].totals
        assert totals is not None  # of every plan that is made from a spec
        told = {"tokens": totals.tokens, "steps": totals.steps, "GPU-hours": totals.gpu_hours}
        rows.append({**point.values, **told})
    known = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    show_table(Table("Points", known, rows))
    jobs = {job.key: job for plan in plans.values() for job in plan.trained()}
    apart = sum(job.tokens for plan in plans.values() for job in plan.trained())
    bound = at_most(*(job.rows for job in jobs.values()))
    hours = [job.cost.gpu_hours for job in jobs.values() if job.cost.gpu_hours is not None]
    more = f", {measured(sum(hours))} GPU-hours" if hours else ""
    together = counted(sum(job.tokens for job in jobs.values()), "tokens")
    say(
        f"{counted(len(found), 'points')}: {bound}{together} to train{more}, with what they share "
        f"once; {bound}{counted(apart, 'tokens')} each by itself",
        rest="  ",
    )


def _planned_points(found: Sequence[Point], plans: "Mapping[str, Plan]") -> list[dict[str, Any]]:
    """Each point for programs: its values, its variant, and what is to be trained."""
    return [
        {"values": point.values, "variant": point.name, "totals": totals.model_dump(mode="json")}
        for point in found
        if (totals := plans[point.name].totals)
    ]


def _results(found: Sequence[Point], gathered: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each point: its values, the last loss of each stage, and all scores; the best of
    each column marked."""
    rows: list[dict[str, Any]] = []
    measures: dict[str, str] = {}
    for point in found:
        row: dict[str, Any] = dict(point.values)
        for stage in gathered[point.name]["stages"]:
            if "loss" in stage:
                row[name := f"{stage['stage']} loss"] = stage["loss"]
                measures[name] = "loss"
        for scored in gathered[point.name]["evaluations"]:
            for measure, score in scored["scores"].items():
                row[name := f"{scored['job']} {measure}"] = score["score"]
                measures[name] = measure
        rows.append(row)
    best: list[frozenset[str]] = [frozenset() for _ in rows]
    for name, measure in measures.items():
        values = [row[name] for row in rows if name in row]
        wins = (min if measure.startswith(LOWER) else max)(values)
        if any(value != wins for value in values):
            best = [
                each | {name} if row.get(name) == wins else each
                for row, each in zip(rows, best, strict=True)
            ]
    return Table("Results", [*found[0].values, *measures], rows, best)
