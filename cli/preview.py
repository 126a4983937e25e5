"""`etude preview`: shows the data as stages see it, and which tokens they learn."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import options
from .common import compile_file, findings, problem, seen, show
from .screen import colors

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from .preview_screen import Screen


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude preview` to its parser."""
    parser.add_argument("file", metavar="SPEC")
    parser.add_argument(
        "target",
        nargs="?",
        metavar="STAGE|DATASET",
        help="one stage, or one data set (default: the data of all stages that train)",
    )
    parser.add_argument(
        "-n",
        "--records",
        type=options.positive,
        default=2,
        metavar="N",
        help="show N records or rows of each source (default: 2)",
    )
    parser.add_argument("--full", action="store_true", help="shorten nothing")
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        help="the run folder, for what a run has made already (default: runs/RECIPE)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of records as JSON")
    options.miniature(parser)
    options.changes(parser)


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError
    from ..runtime.preview import NoTarget, as_json, preview

    plan, report = compile_file(
        args.file,
        None,
        variant=args.variant,
        sets=args.set,
        miniature=args.miniature,
    )
    if plan is None:
        print(findings([report])) if args.json else show(report)
        return 1
    code, listed, said = 0, [], set()
    screen = None if args.json else _screen(args.full)
    try:
        for found in preview(
            plan, _folder(plan, args), Path(args.file).parent, args.target, records=args.records
        ):
            listed += as_json(found)
            if screen:
                screen.show(found)
            else:
                _aside(found.notes)
            if found.problem and found.problem.message not in said:
                sys.stdout.flush()
                problem(found.problem.message, found.problem.help)
                said.add(found.problem.message)
            code = max(code, int(found.stops))
    except NoTarget as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    except RunError as reason:
        problem(reason.message, reason.help)
        return 1
    if args.json and (listed or not said):
        print(json.dumps(listed, indent=1, ensure_ascii=False))
    return code


def _folder(plan: "Plan", args: Namespace) -> Path:
    """The run folder, or that of the variant in it.

    Raises: RunError: its store cannot be reached.
    """
    inside = ("variants", plan.variant) if plan.variant else ()
    if args.folder and "://" in args.folder:
        return seen("/".join([args.folder.rstrip("/"), *inside]))
    return Path(args.folder or Path("runs") / plan.recipe, *inside)


def _screen(full: bool) -> "Screen":
    import shutil

    from .preview_screen import Screen
    from .preview_text import Style

    columns = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    style = Style.of(colors(sys.stdout), sys.stdout.encoding, max(min(columns, 120), 40))
    return Screen(style, full=full)


def _aside(notes: list[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
