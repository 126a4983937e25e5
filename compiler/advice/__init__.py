"""Warnings about likely mistakes: each rule is one function, registered with its code.

A rule takes the whole program, or every stage of one class, and yields what it finds. Its page in
`spec/findings/rules/` says why, and where its thresholds come from. Where a spec has errors, rules
see what is left without them; a rule that finds something because something else is missing needs
all.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from ...spec.findings.allows import silence
from ...spec.findings.diagnostics import Report
from ...spec.source import Span
from ..program import Scheduled, ScheduledStage

GROUPS = ("rates", "shapes", "cost", "data", "measures", "preferences", "claims", "unused")
"""The modules that hold the rules."""


class Found(NamedTuple):
    """A finding before it has its code."""

    message: str
    span: Span | None
    help: str = ""
    label: str = ""
    notes: tuple[tuple[Span, str], ...] = ()


Rule = Callable[..., Iterator[Found]]
RULES: dict[str, tuple[Rule, type | None, str | None]] = {}
"""Code → the rule, the class of the stages that it looks at one by one (None: all at once), and
what must not be left out of the recipe."""
ALL = ""


def rule(
    code: str, stages: type | None = ScheduledStage, needs: str | None = None
) -> Callable[[Rule], Rule]:
    """Registers a rule: of a stage and the program, or with `stages=None` of the program.

    Args:
        needs: the keyword of the blocks of which none may be left out for the rule to be right;
            ALL: no block at all.
    """

    def register(function: Rule) -> Rule:
        assert code not in RULES, code
        RULES[code] = (function, stages, needs)
        return function

    return register


def rules(program: Scheduled, report: Report) -> Scheduled:
    """Reports what the rules find, and silences what the spec allows; changes nothing."""
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
