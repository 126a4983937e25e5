"""The passes that can find something wrong with a recipe. Checking stops before jobs are made."""

from collections.abc import Callable, Iterable

from ..spec.diagnostics import Report
from ..spec.recipe import Recipe
from .claims import claims
from .program import Program
from .resolve import resolve
from .schedule import schedule
from .unroll import unroll

Pass = Callable[[Program, Report], Program]
CHECKS: tuple[Pass, ...] = (unroll, resolve, schedule, claims)


def check_recipe(recipe: Recipe, report: Report, *, ranks: int | None = None) -> Program | None:
    """The program of a recipe after all passes that can find something wrong, or None."""
    return through(CHECKS, Program(recipe, ranks), report)


def through(passes: Iterable[Pass], program: Program, report: Report) -> Program | None:
    """The program after all passes, or None after the first that found an error."""
    for transform in passes:
        program = transform(program, report)
        if report.errors:
            return None
    return program
