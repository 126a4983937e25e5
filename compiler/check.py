"""The passes that can find something wrong with a recipe. Checking stops before jobs are made."""

from collections.abc import Callable, Iterable

from ..spec.diagnostics import Report
from ..spec.recipe import Recipe
from .claims import claims
from .program import Program
from .resolve import resolve
from .rules import rules
from .schedule import schedule
from .unroll import unroll

Pass = Callable[[Program, Report], Program]
CHECKS: tuple[Pass, ...] = (unroll, resolve, schedule, claims, rules)


def check_recipe(recipe: Recipe, report: Report, *, ranks: int | None = None) -> Program | None:
    """The program of a recipe after all passes that can find something wrong, or None.

    Of a recipe with variants each variant is checked too; what is wrong with one is reported, and
    does not keep the recipe's own program back.
    """
    program = through(CHECKS, Program(recipe, ranks), report)
    if recipe.variants and not recipe.variant:
        from .variants import check_variants  # most recipes have none

        check_variants(recipe, report, ranks=ranks)
    return program


def through(passes: Iterable[Pass], program: Program, report: Report) -> Program | None:
    """The program after all passes, or None after the first that found an error."""
    for transform in passes:
        program = transform(program, report)
        if report.errors:
            return None
    return program
