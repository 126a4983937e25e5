"""`etude plan`: what would run."""

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import compile_file, findings, part_of, problem, remark, show
from .files import write_over
from .screen import say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan

INSTEAD = {"gpus": "plan_gpus", "why": "why", "deep": "plan_deep", "emit": "plan_emit"}
"""Options that ask for something other than the plan → the modules that answer them."""


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude plan` to its parser."""
    parser.add_argument("file", metavar="SPEC")
    parser.add_argument("-o", "--output", metavar="PLAN", help="write the plan as JSON to a file")
    parser.add_argument(
        "--json", action="store_true", help="write the plan as JSON to standard output"
    )
    parser.add_argument("--html", metavar="PAGE", help="write the plan as one HTML page to a file")
    parser.add_argument(
        "--provenance", action="store_true", help="show every value and where it came from"
    )
    parser.add_argument(
        "--why", metavar="STAGE.FIGURE", help="explain a figure, such as pretrain.memory"
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="have torchtitan build every configuration at full size, without weights",
    )
    parser.add_argument(
        "--emit",
        choices=["torchtitan"],
        help="print the plan's train jobs as torchtitan configurations; -o names a folder",
    )
    parser.add_argument(
        "--gpus", metavar="A..B", help="compare time and price on A to B GPUs, placed by auto"
    )
    parser.add_argument(
        "--deadline", metavar="T", help="with --gpus: the cheapest that takes at most T, as in 30d"
    )
    options.ranks(parser)
    options.part(parser)
    options.miniature(parser)
    options.changes(parser)
    parser.add_argument(
        "--against", metavar="EARLIER", help="show what differs from a plan, run folder or spec"
    )
    options.detailed_exitcode(parser)


def run(args: Namespace) -> int:
    if _refused(args):
        return 2
    for option, module in INSTEAD.items():
        if getattr(args, option):
            return import_module(f".{module}", __package__).run(args)
    plan, report = compile_file(
        args.file,
        args.ranks,
        variant=args.variant,
        sets=args.set,
        miniature=args.miniature,
    )
    if plan is None:
        if args.json:
            print(findings([report]))
        else:
            show(report)
        return 1
    show(report)
    plan = part_of(plan, args)
    if plan is None:
        return 2
    if not _written(plan, args):
        return 1
    if args.against:
        from .diff import compare, opened

        old = opened(args.against)
        return 1 if old is None else compare(old, (plan, None), args)
    _print(plan, args)
    return 0


def _refused(args: Namespace) -> bool:
    """Whether options exclude each other; reports it."""
    if args.gpus or args.deadline:
        from .plan_gpus import refused as incomparable

        return incomparable(args)
    if args.miniature:
        from .miniature import refused

        if refused(args):
            return True
    of_part = args.until or args.since or args.only
    whole = next((o for o in (*INSTEAD, "html") if getattr(args, o)), None)
    if of_part and whole:
        problem(f"--{whole} shows a whole plan: remove --until, --from and --only")
        return True
    if args.html:
        from .plan_page import refused as misused

        return misused(args)
    return False


def _written(plan: "Plan", args: Namespace) -> bool:
    """Writes the requested files; returns whether it could, after reporting if not."""
    if args.output:
        try:
            write_over(args.output, plan.to_json() + "\n")
        except OSError as reason:
            problem(f"{args.output} cannot be written: {(reason.strerror or '').lower()}")
            return False
        remark(f"wrote {args.output}")
    if args.html:
        from .plan_page import write

        return write(plan, args) == 0
    return True


def _print(plan: "Plan", args: Namespace) -> None:
    """Prints the plan as JSON or as a table, or not at all if it went to a file."""
    if args.json:
        print(plan.to_json())
    elif args.provenance:
        from .provenance import table as origins

        origins(plan)
    elif not (args.output or args.html):
        if args.miniature:
            from .miniature import table as mapping

            mapping(plan)
        from .plan_table import table

        table(plan)
        _readings(plan)


def _readings(plan: "Plan") -> None:
    """Prints how often stages read their data, if a run here has already made them."""
    from ..runtime.run_folder.store import Store

    home = Path("runs") / (f"{plan.recipe}_miniature" if plan.miniature else plan.recipe)
    store = Store(home / "variants" / plan.variant if plan.variant else home)
    if not store.exists():
        return
    from ..runtime.errors import RunError
    from ..runtime.preparation.repetition import readings_in

    try:
        found = readings_in(plan, store)
    except RunError:
        return
    for each in found:
        say(f"{'warning: ' if each.much else ''}{each}", rest="  ")
