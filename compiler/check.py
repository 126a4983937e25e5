"""The passes that can find something wrong with a recipe. Checking stops before jobs are made."""

from collections.abc import Callable, Iterable
from pathlib import Path

from ..spec.diagnostics import Report
from ..spec.recipe import Recipe
from ..spec.source import Span
from .bases import bases
from .borrow import borrow
from .claims import claims
from .program import Program
from .resolve import resolve
from .rules import rules
from .schedule import schedule
from .unroll import unroll

Pass = Callable[[Program, Report], Program]
SCHEDULED: tuple[Pass, ...] = (borrow, unroll, resolve, schedule)
"""What says how long a recipe is and what changes in it; no claims, no advice."""
CHECKS: tuple[Pass, ...] = (*SCHEDULED, bases, claims, rules)


def check_recipe(
    recipe: Recipe, report: Report, *, ranks: int | None = None, root: Path | None = None
) -> Program | None:
    """The program of a recipe after all passes that can find something wrong, or None.

    Where there are errors, the blocks that have nothing to do with them are looked at all the same.
    Of a recipe with variants each variant is checked too; what is wrong with one is reported, and
    does not keep the recipe's own program back.

    Args:
        root: the folder of the spec, to look at what it names there; None: look at no files.
    """
    program = through(CHECKS, Program(recipe, ranks), report)
    if program is None:
        check_rest_of(recipe, report, ranks=ranks, root=root)
    elif root:
        from .surroundings import surroundings

        surroundings(program, root, report)
    if recipe.variants and not recipe.variant:
        from .variants import check_variants  # most recipes have none

        check_variants(recipe, report, ranks=ranks, root=root)
    return program


def check_rest_of(
    recipe: Recipe, report: Report, *, ranks: int | None = None, root: Path | None = None
) -> None:
    """Adds what is found in the blocks of a recipe that its errors have nothing to do with."""
    from .rest import check_rest  # only where something is wrong

    check_rest(
        recipe.statements,
        Span(recipe.main, 0, 0) if recipe.main else None,
        report,
        variant=recipe.variant,
        sets=recipe.sets,
        ranks=ranks,
        root=root,
    )


def through(passes: Iterable[Pass], program: Program, report: Report) -> Program | None:
    """The program after all passes, or None after the first that found an error."""
    for transform in passes:
        program = transform(program, report)
        if report.failures:
            return None
    return program
