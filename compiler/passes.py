"""The passes: functions that make a program absolute, or find something wrong with it, in order."""

from collections.abc import Callable, Iterable

from ..spec.diagnostics import Report
from .bases import bases
from .claims import claims
from .program import Program
from .resolve import resolve
from .rules import rules
from .schedule import schedule
from .unroll import unroll

Pass = Callable[[Program, Report], Program]
SCHEDULED: tuple[Pass, ...] = (unroll, resolve, schedule)
"""What says how long a recipe is and what changes in it."""
SOUND: tuple[Pass, ...] = (*SCHEDULED, bases)
"""All that can find an error in a recipe without claims; a recipe's miniature has none."""
CLAIMED: tuple[Pass, ...] = (*SOUND, claims)
"""The same with claims, and without advice, which `etude verify` does not show."""
CHECKS: tuple[Pass, ...] = (*CLAIMED, rules)
"""All that can find something."""


def through(passes: Iterable[Pass], program: Program, report: Report) -> Program:
    """The program after all passes, or after the first that found an error."""
    for transform in passes:
        program = transform(program, report)
        if report.failures:
            break
    return program
