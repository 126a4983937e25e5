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
    """The spec in a file and in the files that it uses, bound to its recipe.

    Args:
        variant: the name of one of its variants.
        sets: changes such as `pretrain.lr = 1e-4`, in the syntax of `etude plan --set`.

    Raises: SpecError: with all errors.
    """
    from .loaded import loaded
    from .spec.load import read

    return loaded(read(Path(path)), variant, sets)


def loads(text: str, *, variant: str = "", sets: Sequence[str] = ()) -> "Spec":
    """The spec in a text; the arguments are those of `load`.

    Raises: SpecError: with all errors.
    """
    from .loaded import loaded
    from .spec.load import reads

    return loaded(reads(text), variant, sets)


def check(spec: "Spec | build.Recipe", *, ranks: int | None = None) -> list[Diagnostic]:
    """All findings in a spec and its variants: errors, warnings and notes, in the order of the
    text. The files that it names are not checked.

    Args:
        ranks: check for this many CPU processes instead of the recipe's clusters.
    """
    return _analysed(spec, ranks, each_variant="always").report.ordered()


def compile(spec: "Spec | build.Recipe", *, ranks: int | None = None) -> "Plan":
    """The plan of a spec, loaded or built.

    Args:
        ranks: plan every stage for this many CPU processes instead of its cluster.

    Raises: SpecError: with all errors.
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
        sources = reads(spec.json_text())._replace(folder=Path())
        return analyse(sources, ranks=ranks, each_variant=each_variant)
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
    """What stages see of their data and learn from it: the output of `etude preview --json`.

    Args:
        target: a stage or data set; None for the data of all training stages.
        records: the number of records or rows per source.
        folder: the run folder, for data that the run has already made; `runs/RECIPE` by default.
        root: the folder of the spec; paths of data are relative to it.

    Raises: etude.runtime.errors.RunError: the target does not exist, or a source cannot be read.
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
    """Runs a plan, or the rest of it, in a run folder.

    Args:
        root: the folder of the spec; paths of data are relative to it.
        on_event: receives the output of `etude run --json`, as dicts.

    Raises: etude.runtime.errors.RunError, and its subclasses Stopped, if a person has to do
        something before the run can continue, and Interrupted, if it can simply be started again.
    """
    from .runtime.gang import execute

    execute(plan, Path(folder), Path(root), on_event)
