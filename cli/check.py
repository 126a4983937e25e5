"""`etude check`: reports all errors and likely mistakes at once."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..spec.findings.diagnostics import Report
from ..spec.quantity import counted
from . import options
from .common import analyse_file, show


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude check` to its parser."""
    parser.add_argument("files", nargs="+", metavar="SPEC")
    parser.add_argument(
        "--format",
        choices=["human", "json", "sarif", "github"],
        default="human",
        help="output format: for people, JSON, SARIF 2.1.0, or GitHub annotations",
    )
    parser.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        help="the same as --format json",
    )
    parser.add_argument("--strict", action="store_true", help="fail on warnings, too")
    options.ranks(parser)
    options.changes(parser)


def run(args: Namespace) -> int:
    reports = []
    human = args.format == "human"
    for file in args.files:
        found = analyse_file(
            file, ranks=args.ranks, variant=args.variant, sets=args.set, each_variant=True
        )
        program, report = found.program, found.report
        reports.append(report)
        if human:
            show(report, notes=True)
            if program and not _failed(report, args.strict):
                stages = len(program.stages)
                print(f"{file}: fine ({counted(stages, 'stages')})")
    if not human:
        _print(args.format, reports)
    sys.stdout.flush()
    return 1 if any(_failed(report, args.strict) for report in reports) else 0


def _failed(report: Report, strict: bool) -> bool:
    return any(
        d.severity == "error" or (strict and d.severity == "warning") for d in report.diagnostics
    )


def _print(format: str, reports: Sequence[Report]) -> None:
    from . import formats

    make = {"json": formats.as_json, "sarif": formats.as_sarif, "github": formats.as_github}
    text = make[format](reports)
    if text:
        print(text)
