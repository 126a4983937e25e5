"""Etude's Python API: load a recipe, check it, compile it, run it.

import etude

recipe = etude.load("recipe.etude")
plan = etude.compile(recipe)
etude.run(plan, "runs/recipe")
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .spec.diagnostics import Diagnostic, Report, SpecError

if TYPE_CHECKING:
    from .compiler.plan import Plan
    from .spec.recipe import Recipe

__all__ = ["Diagnostic", "SpecError", "compile", "load", "loads", "run"]


def load(path: str | Path) -> "Recipe":
    """The recipe in a spec file and in what it `use`s.

    Raises: SpecError: with all that is wrong.
    """
    from .spec import load as loading

    report = Report()
    recipe = loading.load(Path(path), report)
    report.stop_on_errors()
    assert recipe
    return recipe


def loads(text: str) -> "Recipe":
    """The recipe in a text.

    Raises: SpecError: with all that is wrong.
    """
    from .spec import load as loading

    report = Report()
    recipe = loading.loads(text, report)
    report.stop_on_errors()
    assert recipe
    return recipe


def compile(recipe: "Recipe", *, ranks: int | None = None) -> "Plan":
    """The plan of a recipe.

    Args:
        ranks: plan every stage for so many CPU processes instead of its cluster.

    Raises: SpecError: with all that is wrong.
    """
    from .compiler.compile import compile_recipe

    report = Report()
    plan = compile_recipe(recipe, report, ranks=ranks)
    report.stop_on_errors()
    assert plan
    return plan


def run(
    plan: "Plan",
    folder: str | Path,
    *,
    root: str | Path = ".",
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
) -> None:
    """Runs a plan, or what is left of it, in a run folder.

    Args:
        root: the folder where relative paths of data start: the spec's.
        on_event: gets what `etude run --json` prints, as dicts.

    Raises: etude.runtime.errors.RunError, and its subclass Stopped where the run can be resumed.
    """
    from .runtime.gang import execute

    execute(plan, Path(folder), Path(root), on_event)
