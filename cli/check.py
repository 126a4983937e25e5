"""`etude check`: everything that is wrong with specs, all at once."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..spec.diagnostics import Report
from .common import load_file, show


def run(arguments: Namespace) -> int:
    from ..compiler.check import check_recipe

    reports = []
    human = arguments.format == "human"
    for file in arguments.files:
        recipe, report = load_file(file, variant=arguments.variant, sets=arguments.set)
        program = (
            check_recipe(recipe, report, ranks=arguments.ranks, root=Path(file).parent)
            if recipe
            else None
        )
        reports.append(report)
        if human:
            show(report, notes=True)
            if program and not _failed(report, arguments.strict):
                stages = len(program.stages)
                print(f"{file}: fine ({stages} stage{'s' if stages != 1 else ''})")
    if not human:
        _print(arguments.format, reports)
    sys.stdout.flush()
    return 1 if any(_failed(report, arguments.strict) for report in reports) else 0


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
