"""Stages of variants that a recipe refers to, such as `average { of = [sft, gentle.sft] }`.

The stage `sft` of the variant `gentle`, and those of its ancestors that the variant changes, become
stages of the recipe: `gentle.sft` beside `sft`, in the same rounds. Stages that the variant leaves
unchanged are the recipe's own. So are stages that refer to variants: an average of variants is one
model again.
"""

from collections.abc import Callable, Container, Iterator
from functools import cached_property
from typing import NamedTuple, TypeAlias

from ...spec.findings.diagnostics import Report
from ...spec.record import replace
from ...spec.reference import PREVIOUS, Reference
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..ids import StageId
from .graph import named_parents
from .references import names_of, with_references
from .scope import above

SHARED = ("models", "tokenizers", "clusters", "dialogs")
"""What a variant may not change if its stages are used: they are averaged with the recipe's."""
Place: TypeAlias = Reference
"""A stage of the recipe: a reference that names it from anywhere, without an index."""
OfVariant: TypeAlias = Callable[[str, Report], r.Recipe | None]


def borrow(recipe: r.Recipe, of_variant: OfVariant, report: Report) -> r.Recipe:
    """The recipe with the stages of variants that it refers to.

    Args:
        of_variant: the recipe with one of its variants applied; None if that has an error.
    """
    for variant in recipe.variants:
        wanted = list(_wanted(recipe, variant))
        if wanted:
            other = _fitting(recipe, variant, of_variant, wanted[0][1], report)
            recipe = _Borrower(recipe, other, variant).run(wanted, report) if other else recipe
    return recipe


def _wanted(recipe: r.Recipe, variant: str) -> Iterator[tuple[Place, Span | None]]:
    """The stages of a variant that are referred to and still missing, as places in the recipe."""
    there = dict(_stages(recipe))
    references = _References(recipe)
    for place, stage in there.items():
        for of, at in references.of(stage, place.rounds).stages.items():
            if of.variant == variant and of not in there and of.original in there:
                yield of.original, at


def _fitting(
    recipe: r.Recipe, variant: str, of_variant: OfVariant, at: Span | None, report: Report
) -> r.Recipe | None:
    """The recipe with the variant applied; None, with a report, if it cannot be used here."""
    own = Report()
    other = of_variant(variant, own)
    if other is None:
        first = next((found.message for found in own.errors), "")
        report.add(
            "E506",
            f"the variant `{variant}` has an error: {first}",
            at,
            help="fix the variant",
        )
        return None
    changes = [group[:-1] for group in SHARED if getattr(recipe, group) != getattr(other, group)]
    if recipe.header.seed != other.header.seed:
        changes.append("seed")
    if _rounds(recipe) != _rounds(other):
        changes.append("number of rounds")
    if changes:
        report.add(
            "E506",
            f"stages of the variant `{variant}` cannot be used here: it changes a "
            + " and a ".join(changes),
            at,
            help="use stages of variants that change only stages and data sets",
        )
        return None
    return other


def _stages(recipe: r.Recipe) -> Iterator[tuple[Place, r.Stage]]:
    for name, stage in recipe.stages.items():
        if isinstance(stage, r.Rounds):
            for inner, repeated in stage.stages.items():
                yield _place(name, inner), repeated
        else:
            yield _place("", name), stage


def _place(rounds: str, name: str) -> Place:
    """The stage with a name in its rounds, or outside of any: `hot.sft`."""
    own = StageId.parse(name)
    return Place(own.name, rounds, own.variant)


def _rounds(recipe: r.Recipe) -> list[int]:
    return [block.count for block in recipe.stages.values() if isinstance(block, r.Rounds)]


Change = Callable[[Reference, Span | None], Reference]


class _Found(NamedTuple):
    """What a stage refers to, and where."""

    stages: dict[Place, Span | None]
    data: dict[str, Span | None]


class _References:
    """Reads the references of a recipe's stages."""

    def __init__(self, recipe: r.Recipe) -> None:
        self.recipe = recipe
        self.names = names_of(recipe)
        self.blocks = {n: b for n, b in recipe.stages.items() if isinstance(b, r.Rounds)}

    def of(self, stage: r.Stage, rounds: str) -> _Found:
        """What a stage in `rounds` refers to; "": outside of any."""
        found = _Found({}, {})

        def stage_of(written: Reference, at: Span | None) -> Reference:
            for each in written.choices:
                found.stages.setdefault(self.place(each, rounds), at)
            return written

        def data_of(written: Reference, at: Span | None) -> Reference:
            for each in written.choices:
                of = self.data(each, rounds)
                if isinstance(of, Place):
                    found.stages.setdefault(of, at)
                else:
                    found.data.setdefault(of, at)
            return written

        self.referring(stage, stage_of, data_of)
        return found

    def named(self, written: str) -> Place:
        """The stage with a name, as used outside of rounds."""
        return self.place(self.names.parse(written), "")

    def place(self, of: Reference, rounds: str) -> Place:
        """The stage of a reference used in `rounds`; its index does not matter."""
        inside = rounds and not of.rounds and of.name in self.blocks[rounds].stages
        return Place(of.name, rounds if inside or of.rounds == PREVIOUS else of.rounds, of.variant)

    def data(self, of: Reference, rounds: str) -> str | Place:
        """The data set of a reference, or the stage whose draws it means."""
        return of.plain if of.plain in self.recipe.datasets else self.place(of, rounds)

    def referring(self, stage: r.Stage, stage_of: Change, data_of: Change) -> r.Stage:
        """A stage of the recipe with its references to stages and data replaced."""
        return with_references(
            stage,
            self.names,
            stage_of=stage_of,
            stages_of=lambda of, at: [stage_of(of, at)],
            data_of=data_of,
        )


class _Borrower:
    """Brings the stages of one variant into the recipe.

    Attributes:
        differs: the stages of the variant that differ from the recipe's.
        data: its data sets that do.
    """

    def __init__(self, recipe: r.Recipe, other: r.Recipe, variant: str) -> None:
        self.recipe = recipe
        self.other = other
        self.variant = variant
        self.theirs = dict(_stages(other))
        self.references = _References(other)
        self.uses = {place: self._uses(place, stage) for place, stage in self.theirs.items()}
        self.differs = {
            place
            for place, stage in _stages(recipe)
            if place in self.theirs and stage != self.theirs[place] and not self._meets(place)
        }
        self.data = {n for n, d in recipe.datasets.items() if d != other.datasets[n]}
        self._spread()

    def run(self, wanted: list[tuple[Place, Span | None]], report: Report) -> r.Recipe:
        for place, at in wanted:
            # In the variant itself, every stage of the variant is its own.
            if place not in self.differs and self.recipe.variant != self.variant:
                report.add(
                    "W639",
                    f"`{self.variant}.{place.name}` is the same as `{place.name}`: the variant "
                    "changes nothing before it",
                    at,
                    help=f"write `{place.name}`, or use a stage that the variant changes",
                )
        needed, waiting = set(), [place for place, _ in wanted]
        while waiting:
            place = waiting.pop()
            if place in self.differs and place not in needed:
                needed.add(place)
                waiting += self._all_stages(self.uses[place])
        data = {name for place in needed for name in self.uses[place].data} & self.data
        return self._with(needed, data)

    def _uses(self, place: Place, stage: r.Stage) -> _Found:
        """What a stage of the variant refers to, and what it continues from by default."""
        found = self.references.of(stage, place.rounds)
        if not named_parents(stage):
            found.stages.update(dict.fromkeys(self._defaults.get(place, ())))
        return found

    @cached_property
    def _defaults(self) -> dict[Place, set[Place]]:
        """What stages continue from by default; in rounds, for the first and for later rounds."""
        linear: dict[str, tuple[Place, r.Stage]] = {}
        for place, stage in self._in_two_rounds():
            linear[f"{len(linear)}"] = place, stage
        found: dict[Place, set[Place]] = {}
        for name, source in above({name: stage for name, (_, stage) in linear.items()}).items():
            if source is not None:
                found.setdefault(linear[name][0], set()).add(linear[source][0])
        return found

    def _in_two_rounds(self) -> Iterator[tuple[Place, r.Stage]]:
        for name, stage in self.other.stages.items():
            if isinstance(stage, r.Rounds):
                for _ in range(2):
                    yield from ((_place(name, n), each) for n, each in stage.stages.items())
            else:
                yield _place("", name), stage

    def _meets(self, place: Place) -> bool:
        """Whether a stage combines models of variants."""
        return any(of.variant for of in self.uses[place].stages)

    def _all_stages(self, found: _Found) -> set[Place]:
        """The stages referred to, including through data sets."""
        names = {name for data in found.data for name in self._stages_of(data)}
        return {*found.stages, *map(self.references.named, names)}

    def _stages_of(self, data: str) -> Iterator[str]:
        dataset = self.other.datasets.get(data)
        if dataset:
            yield from (each.what for each in dataset.filters if not each.file)
            if dataset.candidates:
                yield dataset.candidates

    def _spread(self) -> None:
        """Marks everything that refers to something different as different."""
        size = -1
        while size != len(self.differs) + len(self.data):
            size = len(self.differs) + len(self.data)
            self.data |= {
                name
                for name in self.other.datasets
                if any(self.references.named(of) in self.differs for of in self._stages_of(name))
            }
            self.differs |= {
                place
                for place, used in self.uses.items()
                if not self._meets(place)
                and (self.differs & used.stages.keys() or self.data & used.data.keys())
            }

    def _with(self, needed: set[Place], data: set[str]) -> r.Recipe:
        """The recipe with stages and data sets of the variant beside its own."""
        stages: dict[str, r.Stage | r.Rounds] = {}
        for name, block in self.recipe.stages.items():
            if isinstance(block, r.Rounds):
                inner = self._beside(name, block.stages, needed, data)
                stages[name] = replace(block, stages=inner)
            else:
                stages |= self._beside("", {name: block}, needed, data)
        datasets = dict(self.recipe.datasets)
        for name in self.recipe.datasets:
            if name in data:
                of = self.other.datasets[name]
                made = Reference(name, variant=self.variant).own
                datasets[made] = replace(
                    of,
                    name=made,
                    candidates=of.candidates and self._taken_name(of.candidates, needed),
                    filters=[
                        each
                        if each.file
                        else replace(each, what=self._taken_name(each.what, needed))
                        for each in of.filters
                    ],
                )
        return replace(self.recipe, stages=stages, datasets=datasets)

    def _beside(
        self, rounds: str, stages: dict[str, r.Stage], needed: set[Place], data: set[str]
    ) -> dict[str, r.Stage]:
        """Stages, those of the variant after their originals, with updated references."""
        found: dict[str, r.Stage] = {}

        def taken(written: Reference, at: Span | None) -> Reference:
            return written.mapped(lambda of: self._taken(of, rounds, needed, data))

        def here(written: Reference, at: Span | None) -> Reference:
            return written.mapped(lambda of: self._here(of, rounds, needed))

        for name, stage in stages.items():
            place = _place(rounds, name)
            found[name] = self.references.referring(stage, here, here)
            if place in needed:
                of = self.references.referring(self.theirs[place], taken, taken)
                name = place._replace(variant=self.variant).own
                found[name] = replace(of, name=name, variant=self.variant)
        return found

    def _taken(
        self, of: Reference, rounds: str, places: Container[Place], data: Container[str]
    ) -> Reference:
        """A reference of a stage of the variant, as it is in the recipe."""
        meant = self.references.data(of, rounds)
        taken = meant in places if isinstance(meant, Place) else meant in data
        return of._replace(variant=self.variant) if taken else of

    def _taken_name(self, name: str, places: Container[Place]) -> str:
        """A stage's name in a data set of the variant, as it is in the recipe."""
        return str(self._taken(self.references.names.parse(name), "", places, ()))

    def _here(self, of: Reference, rounds: str, needed: Container[Place]) -> Reference:
        """An updated reference of the recipe: to a stage of the variant, or to its original."""
        if of.variant != self.variant or of.plain in self.other.datasets:
            return of
        return self._taken(of.original, rounds, needed, ())
