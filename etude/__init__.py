"""Etude's Python API: load a recipe, check it, compile it, run it.

import etude

recipe = etude.load("recipe.etude")
plan = etude.compile(recipe)
etude.run(plan, "runs/recipe")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .spec.diagnostics import Diagnostic, Report, SpecError

if TYPE_CHECKING:
    from . import build
    from .compiler.plan import Plan
    from .spec.recipe import Recipe

__all__ = ["Diagnostic", "SpecError", "check", "compile", "load", "loads", "preview", "run"]


def load(path: str | Path, *, variant: str = "", sets: Sequence[str] = ()) -> "Recipe":
    """The recipe in a spec file and in what it `use`s.

    Args:
        variant: the name of one of its variants.
        sets: changes such as `pretrain.lr = 1e-4`, as `etude plan --set` takes them.

    Raises: SpecError: with all that is wrong.
    """
    from .spec import load as loading

    report = Report()
    recipe = loading.load(Path(path), report, variant=variant, sets=sets)
    report.stop_on_errors()
    assert recipe
    return recipe


def loads(text: str, *, variant: str = "", sets: Sequence[str] = ()) -> "Recipe":
    """The recipe in a text; the arguments are those of `load`.

    Raises: SpecError: with all that is wrong.
    """
    from .spec import load as loading

    report = Report()
    recipe = loading.loads(text, report, variant=variant, sets=sets)
    report.stop_on_errors()
    assert recipe
    return recipe


def check(recipe: "Recipe | build.Recipe", *, ranks: int | None = None) -> list[Diagnostic]:
    """All that is found in a recipe: errors, warnings and notes, in the order of the text.

    Args:
        ranks: check for so many CPU processes instead of the recipe's clusters.
    """
    from .compiler.check import check_recipe

    report = Report()
    try:
        check_recipe(_bound(recipe), report, ranks=ranks)
    except SpecError as wrong:
        return wrong.diagnostics
    return report.ordered()


def compile(recipe: "Recipe | build.Recipe", *, ranks: int | None = None) -> "Plan":
    """The plan of a recipe, loaded or built.

    Args:
        ranks: plan every stage for so many CPU processes instead of its cluster.

    Raises: SpecError: with all that is wrong.
    """
    from .compiler.compile import compile_recipe

    report = Report()
    plan = compile_recipe(_bound(recipe), report, ranks=ranks)
    report.stop_on_errors()
    assert plan
    return plan


def _bound(recipe: "Recipe | build.Recipe") -> "Recipe":
    from .spec.recipe import Recipe

    return recipe if isinstance(recipe, Recipe) else recipe.bound()


def preview(
    plan: "Plan",
    target: str | None = None,
    *,
    records: int = 2,
    folder: str | Path | None = None,
    root: str | Path = ".",
) -> list[dict[str, Any]]:
    """What stages see of their data, and what they learn of it: what `etude preview --json` lists.

    Args:
        target: a stage or data set; None for the data of all stages that train.
        records: how many records or rows of each source.
        folder: the run folder, for what the run has made already; `runs/RECIPE` by default.
        root: the folder where relative paths of data start: the spec's.

    Raises: etude.runtime.errors.RunError: there is no such target, or a source cannot be read.
    """
    from .runtime import preview as previews

    found: list[dict[str, Any]] = []
    made = Path(folder) if folder else Path("runs") / plan.recipe
    for each in previews.preview(plan, made, Path(root), target, records=records):
        if each.problem:
            raise each.problem
        found += previews.as_json(each)
    return found


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
