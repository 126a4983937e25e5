"""What a stage refers to: other stages and data sets, by attribute."""

from collections.abc import Callable, Mapping
from typing import Any

from ..spec import recipe as r
from ..spec.record import replace
from ..spec.schedule import Last, Schedule
from ..spec.source import Span

Rename = Callable[[str, Span | None], str]


def with_references(
    stage: r.Stage,
    *,
    stage_of: Rename,
    stages_of: Callable[[str, Span | None], list[str]],
    data_of: Rename,
) -> r.Stage:
    """A stage with other references.

    Args:
        stage_of: a reference to one stage, and where it stands → the new one.
        stages_of: the same of an entry of a list of stages, which may become several.
        data_of: a reference to a data set.
    """
    changes: dict[str, Any] = {}
    for attribute in ("from_", "judge", "reference"):
        written = getattr(stage, attribute, None)
        if written:
            changes[attribute] = stage_of(written, stage.at(attribute.rstrip("_")))
    if isinstance(stage, r.Average | r.Best):
        at = stage.at("of")
        changes["of"] = [name for of in stage.of for name in stages_of(of, at)]
    if isinstance(stage, r.Sample | r.Measuring) and stage.prompts:
        changes["prompts"] = data_of(stage.prompts, stage.at("prompts"))
    for attribute in ("loss", "accuracy", "data"):
        written = getattr(stage, attribute, None)
        at = stage.at(attribute)
        if isinstance(written, list):
            changes[attribute] = [data_of(name, at) for name in written]
        elif isinstance(written, Schedule):
            changes[attribute] = replace(
                written,
                segments=tuple(
                    replace(
                        segment,
                        start=_mixture(segment.start, data_of, segment.span),
                        end=_mixture(segment.end, data_of, segment.span),
                    )
                    for segment in written.segments
                ),
            )
    return replace(stage, **changes)


def _mixture(mixture: Any, data_of: Rename, at: Span | None) -> Any:
    if isinstance(mixture, Last):
        factors = tuple((data_of(name, at), factor) for name, factor in mixture.factors)
        return replace(mixture, factors=factors)
    if isinstance(mixture, Mapping):
        return {data_of(name, at): share for name, share in mixture.items()}
    return mixture
