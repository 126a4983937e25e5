"""Stages of variants that a recipe refers to, such as `average { of = [sft, gentle.sft] }`.

The stage `sft` of the variant `gentle`, and of what it comes from all that the variant changes,
become stages of the recipe: `gentle.sft` beside `sft`, in the same rounds. What the variant leaves
as it is, is the recipe's own. So is every stage that refers to variants: where they meet in an
average, they are one model again.
"""

import re
from collections.abc import Callable, Container, Iterator
from functools import cached_property
from typing import NamedTuple

from ..spec import recipe as r
from ..spec.bind import bind
from ..spec.diagnostics import Report
from ..spec.record import replace
from ..spec.source import Span
from ..spec.variants import changed
from .graph import named_parents
from .program import Program
from .references import with_references
from .scope import above

SHARED = ("models", "tokenizers", "clusters", "dialogs")
"""What a variant whose stages are taken may not change: they are averaged with the recipe's."""
_NAME = re.compile(r"[^\[\] ]+")


class Place(NamedTuple):
    """A stage in the recipe; `rounds` is "" outside of rounds."""

    rounds: str
    name: str


def borrow(program: Program, report: Report) -> Program:
    """Adds the stages of variants that the recipe refers to."""
    recipe = program.recipe
    for variant in recipe.variants:
        wanted = list(_wanted(recipe, variant))
        if wanted:
            other = _bound(recipe, variant, wanted[0][1], report)
            recipe = _Borrower(recipe, other, variant).run(wanted, report) if other else recipe
    return replace(program, recipe=recipe)


def _wanted(recipe: r.Recipe, variant: str) -> Iterator[tuple[Place, Span | None]]:
    """The stages of a variant that are referred to and not there yet, as places in the recipe."""
    there = dict(_stages(recipe))
    for (rounds, _), stage in there.items():
        for place, at in _References(recipe, rounds).of(stage).stages.items():
            name = place.name.removeprefix(f"{variant}.")
            if name != place.name and place not in there and Place(place.rounds, name) in there:
                yield Place(place.rounds, name), at


def _bound(recipe: r.Recipe, variant: str, at: Span | None, report: Report) -> r.Recipe | None:
    """The recipe as the variant makes it; None after reporting that it is of no use here."""
    own = Report()
    items = changed(recipe.statements, own, variant=recipe.variant)
    where = Span(recipe.main, 0, 0) if recipe.main else None
    other = bind(items, own, where=where, variant=variant, sets=recipe.sets)
    if other is None:
        first = next((found.message for found in own.errors), "")
        report.add(
            "E506",
            f"the variant `{variant}` has a mistake of its own: {first}",
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
            f"stages of the variant `{variant}` do not fit in: it changes a "
            + " and a ".join(changes),
            at,
            help="take stages of variants that change nothing but stages and data sets",
        )
        return None
    return other


def _stages(recipe: r.Recipe) -> Iterator[tuple[Place, r.Stage]]:
    for name, stage in recipe.stages.items():
        if isinstance(stage, r.Rounds):
            for inner, repeated in stage.stages.items():
                yield Place(name, inner), repeated
        else:
            yield Place("", name), stage


def _rounds(recipe: r.Recipe) -> list[int]:
    return [block.count for block in recipe.stages.values() if isinstance(block, r.Rounds)]


class _Found(NamedTuple):
    """What a stage refers to, with where."""

    stages: dict[Place, Span | None]
    data: dict[str, Span | None]


class _References:
    """Reads references that stand in `rounds`, or outside of any."""

    def __init__(self, recipe: r.Recipe, rounds: str) -> None:
        self.recipe = recipe
        self.rounds = rounds
        self.blocks = {n: b for n, b in recipe.stages.items() if isinstance(b, r.Rounds)}

    def of(self, stage: r.Stage) -> _Found:
        found = _Found({}, {})

        def stage_of(written: str, at: Span | None) -> str:
            for part in written.split(" or "):
                found.stages.setdefault(self.place(part), at)
            return written

        def data_of(written: str, at: Span | None) -> str:
            of = self.data(written)
            if isinstance(of, Place):
                found.stages.setdefault(of, at)
            else:
                found.data.setdefault(of, at)
            return written

        with_references(
            stage, stage_of=stage_of, stages_of=lambda w, at: [stage_of(w, at)], data_of=data_of
        )
        return found

    def place(self, written: str) -> Place:
        """The stage of a reference without `or`; its index does not matter."""
        match = _NAME.match(written)
        name = match[0] if match else written
        first, _, rest = name.partition(".")
        if first in self.recipe.variants and first not in self.blocks:
            place = self.place(rest)
            return Place(place.rounds, f"{first}.{place.name}")
        if first == "previous":
            return Place(self.rounds, rest)
        if self.rounds and name in self.blocks[self.rounds].stages:
            return Place(self.rounds, name)
        return Place(first, rest) if first in self.blocks else Place("", name)

    def data(self, written: str) -> str | Place:
        """The data set of a reference, or the stage whose draws are meant."""
        match = _NAME.match(written)
        name = match[0] if match else written
        return name if name in self.recipe.datasets else self.place(name.removesuffix(".pairs"))

    def renamed(
        self, written: str, places: Container[Place], data: Container[str], variant: str
    ) -> str:
        """A reference of a stage of the variant, as it is in the recipe."""
        parts = []
        for part in written.split(" or "):
            of = self.data(part)
            head, inner = "", part
            if isinstance(of, Place) and part.startswith("previous."):
                head, inner = "previous.", part.removeprefix("previous.")
            elif isinstance(of, Place) and of.rounds and part.startswith(f"{of.rounds}."):
                head, inner = f"{of.rounds}.", part.removeprefix(f"{of.rounds}.")
            taken = of in places if isinstance(of, Place) else of in data
            parts.append(f"{head}{variant}.{inner}" if taken else part)
        return " or ".join(parts)


class _Borrower:
    """Brings the stages of one variant into the recipe.

    Attributes:
        differs: the stages of the variant that are not what they are in the recipe.
        data: its data sets that are not.
    """

    def __init__(self, recipe: r.Recipe, other: r.Recipe, variant: str) -> None:
        self.recipe = recipe
        self.other = other
        self.variant = variant
        self.theirs = dict(_stages(other))
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
            # Of the variant itself, every stage of the variant is its own.
            if place not in self.differs and self.recipe.variant != self.variant:
                report.add(
                    "W639",
                    f"`{self.variant}.{place.name}` is `{place.name}` itself: the variant "
                    "changes nothing that it comes from",
                    at,
                    help=f"write `{place.name}`, or take a stage that the variant changes",
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
        """What a stage of the variant refers to, and what it continues from unasked."""
        found = _References(self.other, place.rounds).of(stage)
        if not named_parents(stage):
            found.stages.update(dict.fromkeys(self._defaults.get(place, ())))
        return found

    @cached_property
    def _defaults(self) -> dict[Place, set[Place]]:
        """What stages continue from unasked: of one in rounds, in the first and in later rounds."""
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
                    yield from ((Place(name, n), each) for n, each in stage.stages.items())
            else:
                yield Place("", name), stage

    def _meets(self, place: Place) -> bool:
        """Whether models of variants meet in a stage."""
        names = (of.name.partition(".")[0] for of in self.uses[place].stages)
        return any(name in self.recipe.variants for name in names)

    def _all_stages(self, found: _Found) -> set[Place]:
        """The stages that are referred to, through data sets too."""
        reader = _References(self.other, "")
        names = {name for data in found.data for name in self._stages_of(data)}
        return {*found.stages, *(reader.place(name) for name in names)}

    def _stages_of(self, data: str) -> Iterator[str]:
        dataset = self.other.datasets.get(data)
        if dataset:
            yield from (each.what for each in dataset.filters if not each.file)
            if dataset.candidates:
                yield dataset.candidates

    def _spread(self) -> None:
        """What refers to something that differs does so, too."""
        size = -1
        while size != len(self.differs) + len(self.data):
            size = len(self.differs) + len(self.data)
            reader = _References(self.other, "")
            self.data |= {
                name
                for name in self.other.datasets
                if any(reader.place(of) in self.differs for of in self._stages_of(name))
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
        outside = _References(self.other, "")
        for name in self.recipe.datasets:
            if name in data:
                of = self.other.datasets[name]
                datasets[f"{self.variant}.{name}"] = replace(
                    of,
                    name=f"{self.variant}.{name}",
                    candidates=of.candidates
                    and outside.renamed(of.candidates, needed, data, self.variant),
                    filters=[
                        each
                        if each.file
                        else replace(
                            each, what=outside.renamed(each.what, needed, data, self.variant)
                        )
                        for each in of.filters
                    ],
                )
        return replace(self.recipe, stages=stages, datasets=datasets)

    def _beside(
        self, rounds: str, stages: dict[str, r.Stage], needed: set[Place], data: set[str]
    ) -> dict[str, r.Stage]:
        """Stages, those of the variant after their originals, and references as they are now."""
        found: dict[str, r.Stage] = {}
        reader = _References(self.other, rounds)

        def taken(written: str, at: Span | None) -> str:
            return reader.renamed(written, needed, data, self.variant)

        def here(written: str, at: Span | None) -> str:
            return self._canonical(written, reader, needed)

        for name, stage in stages.items():
            found[name] = _referring(stage, here)
            if Place(rounds, name) in needed:
                of = _referring(self.theirs[Place(rounds, name)], taken)
                name = f"{self.variant}.{name}"
                found[name] = replace(of, name=name, variant=self.variant)
        return found

    def _canonical(self, written: str, reader: _References, needed: set[Place]) -> str:
        """`gentle.align.sft` as it is called now: `align.gentle.sft`, or `align.sft` itself."""
        parts = []
        for part in written.split(" or "):
            first, _, rest = part.partition(".")
            if first == self.variant and isinstance(reader.data(part), Place):
                of = reader.data(rest)
                there = of if isinstance(of, Place) else Place("", of)
                places = needed if there in needed else ()
                part = reader.renamed(rest, places, (), self.variant)
            parts.append(part)
        return " or ".join(parts)


def _referring(stage: r.Stage, rename: Callable[[str, Span | None], str]) -> r.Stage:
    return with_references(
        stage, stage_of=rename, stages_of=lambda w, at: [rename(w, at)], data_of=rename
    )
