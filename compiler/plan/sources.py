"""The sources of a recipe's values: cited, assumed, or not given."""

from collections.abc import Iterator
from typing import NamedTuple

from ...spec.schema import recipe as r
from ...spec.source import Span
from .plan import Sources

_NAMES = frozenset(
    (
        "size",
        "family",
        "model",
        "from",
        "tokenizer",
        "cluster",
        "dialog",
        "verify",
        "reference",
        "of",
        "judge",
        "prompts",
        "candidates",
        "tracking",
        "weights",
        "hub",
        "revision",
    )
)
"""Attributes that say which model or stage is meant, not how it is trained."""


class SourcedValue(NamedTuple):
    """A value given by a spec.

    Attributes:
        name: block and attribute: `pretrain.seq_len`.
        source: its source; None if the spec gives none.
    """

    name: str
    place: Span
    source: r.Cited | None


def sourced_values(recipe: r.Recipe) -> list[SourcedValue]:
    """The values of models, clusters and stages that affect training, in order."""
    found = []
    for block in _blocks(recipe):
        for attribute, place in block.places.items():
            if attribute and attribute not in _NAMES:
                name = f"{block.name}.{attribute}"
                found.append(SourcedValue(name, place, block.sources.get(attribute)))
    return found


def count(recipe: r.Recipe) -> Sources:
    """The number of values, and of those for which the spec gives a source."""
    found = [of.source for of in sourced_values(recipe)]
    return Sources(
        values=len(found),
        cited=sum(source is not None and not source.assumed for source in found),
        assumed=sum(source is not None and source.assumed for source in found),
    )


def in_words(of: Sources) -> str:
    """The same for people."""
    return (
        f"of {of.values} values {of.cited} cited, {of.assumed} assumed, "
        f"{of.values - of.cited - of.assumed} without a source"
    )


def _blocks(recipe: r.Recipe) -> Iterator[r.Declaration]:
    yield from recipe.models.values()
    yield from recipe.clusters.values()
    for stage in recipe.stages.values():
        if isinstance(stage, r.Rounds):
            yield from stage.stages.values()
        else:
            yield stage
