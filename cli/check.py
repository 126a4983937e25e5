"""`etude check`: everything that is wrong with specs, all at once."""

import sys
from argparse import Namespace

from .common import compile_file, findings, show


def run(arguments: Namespace) -> int:
    reports = []
    for file in arguments.files:
        plan, report = compile_file(file, arguments.ranks)
        reports.append(report)
        if arguments.json:
            continue
        show(report)
        if plan:
            stages = len(plan.stages)
            print(f"{file}: fine ({stages} stage{'s' if stages != 1 else ''}, {len(plan.jobs)} jobs)")
    if arguments.json:
        print(findings(reports))
    sys.stdout.flush()
    return 1 if any(report.errors for report in reports) else 0
