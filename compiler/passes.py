"""The passes: functions that resolve a program step by step or find errors in it, in order."""

from collections.abc import Callable, Iterable
from typing import Any

from ..spec.findings.diagnostics import Report
from .advice import rules
from .claims.claims import claims
from .program import Program
from .resolve.unroll import unroll
from .schedule.rope_bases import bases
from .schedule.schedule import schedule
from .stages.exported import exported
from .stages.resolve import resolve

Pass = Callable[[Any, Report], Program]
"""From the program of the previous pass to its own; the types say which programs."""
SCHEDULED: tuple[Pass, ...] = (unroll, resolve, schedule)
"""The passes that determine how long a recipe is and what changes in it."""
SOUND: tuple[Pass, ...] = (*SCHEDULED, bases, exported)
"""All passes that can find an error in a recipe without claims, such as a miniature."""
CLAIMED: tuple[Pass, ...] = (*SOUND, claims)
"""The same with claims but without advice, which `etude verify` does not show."""
CHECKS: tuple[Pass, ...] = (*CLAIMED, rules)
"""All passes that can find something."""


def through(passes: Iterable[Pass], program: Program, report: Report) -> Program:
    """The program after all passes, or after the first that found an error."""
    for transform in passes:
        program = transform(program, report)
        if report.failures:
            break
    return program
