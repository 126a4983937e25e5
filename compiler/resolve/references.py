"""References of a stage to other stages and data sets, according to its attributes' kinds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ...spec.record import replace
from ...spec.reference import Names, Reference
from ...spec.schedule import Last, Schedule
from ...spec.schema import recipe as r
from ...spec.schema.group_kinds import Group
from ...spec.source import Span
from ..ids import DataId, StageId

MADE_OF = ("from", "of")
"""The attributes that name the stages whose weights a stage continues from, takes or compares."""
Named = Reference | StageId | DataId
"""What a reference may be replaced with."""
Rename = Callable[[Reference, Span | None], Named]


class Referring(NamedTuple):
    """An attribute with which a stage names other blocks.

    Attributes:
        attribute: its name, or that of the group that it belongs to.
        field: its name in Python.
        to: the keywords of the blocks that it may name.
        value: a name, a list of names, weights by name or a schedule of mixtures; None: not given.
        group: the field of the group that it belongs to; "": it belongs to the stage.
    """

    attribute: str
    field: str
    to: tuple[str, ...]
    value: Any
    group: str = ""

    @property
    def reads_data(self) -> bool:
        """Whether it names data, possibly drawn by stages, rather than the stages themselves."""
        return "dataset" in self.to

    @property
    def names(self) -> Iterator[str]:
        """The names, as written; a mixture that is merely scaled was named in an earlier one."""
        if isinstance(self.value, str):
            yield self.value
        elif isinstance(self.value, Schedule):
            for mix, _ in _mixtures(self.value):
                yield from mix if isinstance(mix, Mapping) else ()
        else:
            yield from self.value or ()

    def at(self, stage: r.Stage) -> Iterator[tuple[str, Span | None]]:
        """All names in the attribute of a stage, including mixtures that are scaled, and where."""
        if isinstance(self.value, Schedule):
            for mix, span in _mixtures(self.value):
                yield from ((name, span) for name in mixed(mix))
        else:
            yield from ((name, stage.at(self.attribute)) for name in self.names)


def _mixtures(schedule: Schedule) -> Iterator[tuple[Any, Span | None]]:
    """The values at the beginning and the end of a schedule's segments, and where they are."""
    for segment in schedule.segments:
        yield segment.start, segment.span
        yield segment.end, segment.span


def mixed(mix: object) -> list[str]:
    """The data sets of a mixture, or of the mixture that it scales."""
    if isinstance(mix, Last):
        return [name for name, _ in mix.factors]
    return list(mix) if isinstance(mix, dict) else []


def referring(stage: r.Stage) -> Iterator[Referring]:
    """The attributes with which a stage names other blocks, in the order of the schema."""
    for name, field, kinds, group in _referring(type(stage)):
        within = getattr(stage, group) if group else stage
        if within is not None:
            yield Referring(name, field, kinds, getattr(within, field), group)


@cache
def _referring(kind: type[r.Stage]) -> tuple[tuple[str, str, tuple[str, ...], str], ...]:
    """Name, field, kinds of blocks, and field of the group, of a kind of stage's attributes that
    name other blocks."""
    found = []
    for name, of in r.attributes(kind).items():
        if of.kind.refers:
            found.append((name, of.field, of.kind.refers, ""))
        elif isinstance(of.kind, Group):
            inner = r.attributes(of.kind.holds).values()
            found += [
                (name, each.field, to, of.field) for each in inner if (to := each.kind.refers)
            ]
    return tuple(found)


def names_of(recipe: r.Recipe) -> Names:
    """The names needed to parse the recipe's references."""
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
    """A stage with its references replaced.

    Args:
        names: needed to parse references.
        stage_of: a reference to one stage, and its place → the new reference.
        stages_of: the same for an entry of a list of stages, which may become several.
        data_of: the same for a reference to a data set.
    """

    def read_data(written: str, at: Span | None) -> str:
        return str(data_of(names.parse(written), at))

    changes: dict[str, dict[str, Any]] = {}
    for each in _stages_first(stage):
        at, value = stage.at(each.attribute), each.value
        new = value
        if isinstance(value, Schedule):
            new = _schedule(value, read_data)
        elif each.reads_data and isinstance(value, list):
            new = [read_data(name, at) for name in value]
        elif each.reads_data and value:
            new = read_data(value, at)
        elif isinstance(value, Mapping):
            new = {str(stage_of(names.parse(name), at)): weight for name, weight in value.items()}
        elif isinstance(value, list):
            new = [str(one) for of in value for one in stages_of(names.parse(of), at)]
        elif value:
            new = str(stage_of(names.parse(value), at))
        if new != value:
            changes.setdefault(each.group, {})[each.field] = new
    own = changes.pop("", {})
    own |= {group: replace(getattr(stage, group), **new) for group, new in changes.items()}
    return replace(stage, **own) if own else stage


def _stages_first(stage: r.Stage) -> Iterator[Referring]:
    """Attributes that may name stages: first those for the stages themselves, then for draws."""
    found = [each for each in referring(stage) if "stage" in each.to]
    yield from (each for each in found if not each.reads_data)
    yield from (each for each in found if each.reads_data)


def _schedule(written: Schedule, data_of: Callable[[str, Span | None], str]) -> Schedule:
    segments = []
    for segment in written.segments:
        start = _mixture(segment.start, data_of, segment.span)
        end = _mixture(segment.end, data_of, segment.span)
        same = start is segment.start and end is segment.end
        segments.append(segment if same else replace(segment, start=start, end=end))
    same = all(new is old for new, old in zip(segments, written.segments, strict=True))
    return written if same else replace(written, segments=tuple(segments))


def _mixture(mixture: Any, data_of: Callable[[str, Span | None], str], at: Span | None) -> Any:
    if isinstance(mixture, Last):
        factors = tuple((data_of(name, at), factor) for name, factor in mixture.factors)
        return replace(mixture, factors=factors)
    if isinstance(mixture, Mapping):
        named = {data_of(name, at): share for name, share in mixture.items()}
        return mixture if [*named] == [*mixture] else named
    return mixture
