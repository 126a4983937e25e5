"""`etude check`: everything that is wrong with specs, all at once."""

import sys
from argparse import Namespace

from .common import findings, load_file, show


def run(arguments: Namespace) -> int:
    from ..compiler.check import check_recipe

    reports = []
    for file in arguments.files:
        recipe, report = load_file(file, variant=arguments.variant, sets=arguments.set)
        program = check_recipe(recipe, report, ranks=arguments.ranks) if recipe else None
        reports.append(report)
        if arguments.json:
            continue
        show(report)
        if program and not report.errors:
            stages = len(program.stages)
            print(f"{file}: fine ({stages} stage{'s' if stages != 1 else ''})")
    if arguments.json:
        print(findings(reports))
    sys.stdout.flush()
    return 1 if any(report.errors for report in reports) else 0
