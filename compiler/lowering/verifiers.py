"""Verifiers of a recipe as they are in plans."""

from collections.abc import Iterable, Mapping

from ...spec.schema import recipe as r
from ..plan.verifiers import Verifier


def planned(recipe: r.Recipe, name: str) -> Verifier:
    """A declared verifier, as in plans."""
    spec = recipe.verifiers[name]
    settings = {name: getattr(spec, of.field) for name, of in r.attributes(r.Verifier).items()}
    settings["schema_file"] = settings.pop("schema")
    return Verifier.model_validate(settings)


def all_planned(recipe: r.Recipe, names: Iterable[str] | None) -> dict[str, Verifier]:
    """The verifiers that a stage names, in its order."""
    return {name: planned(recipe, name) for name in names or ()}


def comparing(verifiers: Mapping[str, Verifier]) -> dict[str, Verifier]:
    """Those that compare with the answer of a record, so that each record needs one."""
    return {name: each for name, each in verifiers.items() if each.compares}
