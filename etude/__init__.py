"""Etude's Python API: load a spec, check it, compile it, run it.

import etude

spec = etude.load("recipe.etude")
plan = etude.compile(spec)
etude.run(plan, "runs/recipe")
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .spec.findings.diagnostics import Diagnostic, SpecError

if TYPE_CHECKING:
    from . import build
    from .compiler.driver import Analysis, EachVariant
    from .compiler.plan.plan import Plan
    from .loaded import Spec

__all__ = ["Diagnostic", "SpecError", "check", "compile", "load", "loads", "preview", "run"]


def load(path: str | Path, *, variant: str = "", sets: Sequence[str] = ()) -> "Spec":
    """The spec in a file and in what it `use`s, bound to its recipe.

    Args:
        variant: the name of one of its variants.
        sets: changes such as `pretrain.lr = 1e-4`, as `etude plan --set` takes them.

    Raises: SpecError: with all that is wrong.
    """
    from .loaded import loaded
    from .spec.load import read

    return loaded(read(Path(path)), variant, sets)


def loads(text: str, *, variant: str = "", sets: Sequence[str] = ()) -> "Spec":
    """The spec in a text; the arguments are those of `load`.

    Raises: SpecError: with all that is wrong.
    """
    from .loaded import loaded
    from .spec.load import reads

    return loaded(reads(text), variant, sets)


def check(spec: "Spec | build.Recipe", *, ranks: int | None = None) -> list[Diagnostic]:
    """All that is found in a spec and in its variants: errors, warnings and notes, in the order of
    the text. The files that it names are not looked at.

    Args:
        ranks: check for this many CPU processes instead of the recipe's clusters.
    """
    return _analysed(spec, ranks, each_variant="always").report.ordered()


def compile(spec: "Spec | build.Recipe", *, ranks: int | None = None) -> "Plan":
    """The plan of a spec, loaded or built.

    Args:
        ranks: plan every stage for this many CPU processes instead of its cluster.

    Raises: SpecError: with all that is wrong.
    """
    from .compiler import driver

    analysis = _analysed(spec, ranks)
    compiled = driver.compile(analysis)
    if compiled is None:
        raise SpecError(analysis.report.ordered())
    return compiled.plan


def _analysed(
    spec: "Spec | build.Recipe", ranks: int | None, *, each_variant: "EachVariant" = "never"
) -> "Analysis":
    from .compiler.driver import analyse
    from .loaded import Spec
    from .spec.load import reads

    if not isinstance(spec, Spec):
        return analyse(reads(spec.json_text()), ranks=ranks, each_variant=each_variant)
    return analyse(
        spec.sources,
        variant=spec.variant,
        sets=spec.sets,
        ranks=ranks,
        each_variant=each_variant,
    )


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

    Raises: etude.runtime.errors.RunError, and its subclasses Stopped, where a person has to do
        something before the run continues, and Interrupted, where it can just be started again.
    """
    from .runtime.gang import execute

    execute(plan, Path(folder), Path(root), on_event)
