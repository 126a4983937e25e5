"""What a stage refers to: other stages and data sets, by attribute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...spec.record import replace
from ...spec.reference import Names, Reference
from ...spec.schedule import Last, Schedule
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..ids import DataId, StageId

Named = Reference | StageId | DataId
"""What a reference may become."""
Rename = Callable[[Reference, Span | None], Named]


def names_of(recipe: r.Recipe) -> Names:
    """The names that tell the parts of the recipe's references apart."""
    blocks = (name for name, stage in recipe.stages.items() if isinstance(stage, r.Rounds))
    return Names(frozenset(recipe.variants), frozenset(blocks))


def with_references(
    stage: r.Stage,
    names: Names,
    *,
    stage_of: Rename,
    stages_of: Callable[[Reference, Span | None], Sequence[Named]],
    data_of: Rename,
) -> r.Stage:
    """A stage with other references.

    Args:
        names: what tells the parts of a reference apart.
        stage_of: a reference to one stage, and where it stands → the new one.
        stages_of: the same of an entry of a list of stages, which may become several.
        data_of: a reference to a data set.
    """

    def read_data(written: str, at: Span | None) -> str:
        return str(data_of(names.parse(written), at))

    changes: dict[str, Any] = {}
    for attribute in ("from_", "judge", "reference"):
        written = getattr(stage, attribute, None)
        if written:
            changes[attribute] = str(
                stage_of(names.parse(written), stage.at(attribute.rstrip("_")))
            )
    if isinstance(stage, r.Average | r.Best):
        at = stage.at("of")
        changes["of"] = [str(one) for of in stage.of for one in stages_of(names.parse(of), at)]
    if isinstance(stage, r.Sample | r.Measuring) and stage.prompts:
        changes["prompts"] = read_data(stage.prompts, stage.at("prompts"))
    for attribute in ("loss", "accuracy", "data"):
        written = getattr(stage, attribute, None)
        at = stage.at(attribute)
        if isinstance(written, list):
            changes[attribute] = [read_data(name, at) for name in written]
        elif isinstance(written, Schedule):
            changes[attribute] = replace(
                written,
                segments=tuple(
                    replace(
                        segment,
                        start=_mixture(segment.start, read_data, segment.span),
                        end=_mixture(segment.end, read_data, segment.span),
                    )
                    for segment in written.segments
                ),
            )
    return replace(stage, **changes)


def _mixture(mixture: Any, data_of: Callable[[str, Span | None], str], at: Span | None) -> Any:
    if isinstance(mixture, Last):
        factors = tuple((data_of(name, at), factor) for name, factor in mixture.factors)
        return replace(mixture, factors=factors)
    if isinstance(mixture, Mapping):
        return {data_of(name, at): share for name, share in mixture.items()}
    return mixture
