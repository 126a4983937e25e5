"""Warnings about likely mistakes: each rule is one function, registered with its code.

A rule takes the whole program, or each stage of one class, and yields its findings. Its page in
`spec/findings/rules/` explains it and gives the sources of its thresholds. If a spec has errors,
rules see only the rest; `needs` protects those that could mistake a missing block for a problem.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from ...spec.findings.allows import silence
from ...spec.findings.diagnostics import Report
from ...spec.source import Span
from ..program import Scheduled, ScheduledStage

GROUPS = (
    "rates",
    "shapes",
    "cost",
    "precision",
    "data",
    "measures",
    "preferences",
    "claims",
    "policies",
    "profiles",
    "unused",
)
"""The modules that hold the rules."""


class Found(NamedTuple):
    """A finding without its code."""

    message: str
    span: Span | None
    help: str = ""
    label: str = ""
    notes: tuple[tuple[Span, str], ...] = ()


Rule = Callable[..., Iterator[Found]]
RULES: dict[str, tuple[Rule, type | None, str | None]] = {}
"""Code → the rule, the class of stages that it is called for one by one (None: the whole program),
and the blocks that must not be missing from the recipe."""
ALL = ""


def rule(
    code: str, stages: type | None = ScheduledStage, needs: str | None = None
) -> Callable[[Rule], Rule]:
    """Registers a rule, called with a stage and the program; with `stages=None`, the program only.

    Args:
        needs: the rule is correct only if no block with this keyword is left out; ALL: no block at
            all.
    """

    def register(function: Rule) -> Rule:
        assert code not in RULES, code
        RULES[code] = (function, stages, needs)
        return function

    return register


def rules(program: Scheduled, report: Report) -> Scheduled:
    """Reports the findings of the rules, minus those that the spec allows; changes nothing."""
    for group in GROUPS:
        import_module(f".{group}", __name__)
    by_class: dict[type | None, list[Any]] = {None: [()]}
    for stage in program.stages.values():
        by_class.setdefault(type(stage), []).append((stage,))
    left_out = program.recipe.left_out - {"expect", "variant"}  # which declare nothing
    for code, (function, stages, needs) in RULES.items():
        if needs in left_out or (needs == ALL and left_out):
            continue
        for arguments in by_class.get(stages, ()):
            for found in function(*arguments, program):
                report.add(
                    code,
                    found.message,
                    found.span,
                    label=found.label,
                    help=found.help,
                    notes=found.notes,
                )
    silence(report, program.recipe.allowances, whole=not left_out)
    return program
