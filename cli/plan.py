"""`etude plan`: what would run."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import compile_file, findings, problem, show

if TYPE_CHECKING:
    from ..compiler.plan import Plan


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude plan` to its parser."""
    parser.add_argument("file", metavar="SPEC")
    parser.add_argument("-o", "--output", metavar="PLAN", help="write the plan as JSON to a file")
    parser.add_argument("--json", action="store_true", help="the plan as JSON on standard output")
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
        help="have torchtitan build every configuration without weights, at its true size",
    )
    parser.add_argument(
        "--emit",
        choices=["torchtitan"],
        help="print the plan's train jobs as configurations of torchtitan; -o names a folder",
    )
    options.ranks(parser)
    options.miniature(parser)
    options.changes(parser)
    parser.add_argument(
        "--against", metavar="EARLIER", help="show what differs from a plan, run folder or spec"
    )
    options.detailed_exitcode(parser)


def run(args: Namespace) -> int:
    if args.miniature:
        from .miniature import refused

        if refused(args):
            return 2
    if args.html:
        from .plan_page import refused as misused

        if misused(args):
            return 2
    if args.why:
        from .why import run as why

        return why(args)
    if args.deep:
        from .plan_deep import run as deep

        return deep(args)
    if args.emit:
        from .plan_emit import run as emit

        return emit(args)
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
    if args.output:
        try:
            Path(args.output).write_text(plan.to_json() + "\n")
        except OSError as reason:
            problem(f"{args.output} cannot be written: {(reason.strerror or '').lower()}")
            return 1
    if args.html:
        from .plan_page import write

        if code := write(plan, args):
            return code
    if args.against:
        from .diff import compare, opened

        old = opened(args.against)
        return 1 if old is None else compare(old, (plan, None), args)
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
    return 0


def _readings(plan: "Plan") -> None:
    """How often stages read their data, where a run here has made them already."""
    from ..runtime.store import Store

    home = Path("runs") / (f"{plan.recipe}_miniature" if plan.miniature else plan.recipe)
    store = Store(home / "variants" / plan.variant if plan.variant else home)
    if not store.exists():
        return
    from ..runtime.errors import RunError
    from ..runtime.repetition import readings_in

    try:
        found = readings_in(plan, store)
    except RunError:
        return
    for each in found:
        print(f"{'warning: ' if each.much else ''}{each}")
