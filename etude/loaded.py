"""The result of `etude.load` and `etude.loads`."""

from collections.abc import Sequence

from .spec.findings.diagnostics import Report, SpecError
from .spec.load import Sources, bound
from .spec.record import Record
from .spec.schema.recipe import Recipe


class Spec(Record):
    """A loaded spec.

    Attributes:
        recipe: its declarations with the requested changes.
        sources: its statements, with their places.
        variant: the variant that was applied; "" for none.
        sets: the changes on top of it.
    """

    recipe: Recipe
    sources: Sources
    variant: str = ""
    sets: Sequence[str] = ()


def loaded(sources: Sources, variant: str = "", sets: Sequence[str] = ()) -> Spec:
    """The loaded spec.

    Raises: SpecError: with all errors.
    """
    recipe = bound(sources, Report(), variant=variant, sets=sets)
    if recipe is None:
        from .compiler.driver import analyse

        raise SpecError(analyse(sources, variant=variant, sets=sets).report.ordered())
    return Spec(recipe=recipe, sources=sources, variant=variant, sets=tuple(sets))
