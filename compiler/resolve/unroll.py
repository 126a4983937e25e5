"""Unrolls rounds into stages: after this pass, every reference is one plain name.

The stage `rm` of round 2 of `rounds align 6` becomes `align.2.rm`; after the block, `align.rm` is
the stage of the last round, and `align.rm[2]` that of the second. An indexed dataset becomes one
dataset per round or range of rounds, and the draws of a sample stage become a dataset.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ...spec.findings.diagnostics import Report, did_you_mean
from ...spec.record import replace
from ...spec.reference import PAIRS, PREVIOUS, Index, Reference
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..ids import DataId, StageId
from ..program import Program
from .references import names_of, with_references
from .weights import published

_FILES = {"": "drafts.jsonl", PAIRS: "pairs.jsonl"}
"""The data that stages offer, and the files that contain them."""


class Place(NamedTuple):
    """The place of a reference: in which round of which block, if any."""

    rounds: r.Rounds | None = None
    round: int = 0


def unroll(program: Program, report: Report) -> Program:
    """Replaces the recipe by one without rounds, whose references are plain names."""
    return replace(program, recipe=_Unroller(program.recipe, report).run())


class _Unroller:
    def __init__(self, recipe: r.Recipe, report: Report) -> None:
        self.recipe = recipe
        self.report = report
        self.datasets = dict(recipe.datasets)
        self.blocks = {n: b for n, b in recipe.stages.items() if isinstance(b, r.Rounds)}
        self.names = names_of(recipe)
        self.stages = {
            stage: (spec, place)
            for name, block in recipe.stages.items()
            for stage, spec, place in _repeated(name, block)
        }

    def run(self) -> r.Recipe:
        stages: dict[str, r.Stage | r.Rounds] = {
            str(name): self._stage(stage, str(name), place)
            for name, (stage, place) in self.stages.items()
        }
        for name, dataset in list(self.datasets.items()):
            if dataset.candidates and name in self.recipe.datasets:
                self._candidates(name, dataset)
        stages = {**published(self.recipe.models, stages, self.report), **stages}
        return replace(self.recipe, stages=stages, datasets=self.datasets)

    def _stage(self, stage: r.Stage, name: str, place: Place) -> r.Stage:
        """The stage under its own name, with every reference in it replaced."""
        return with_references(
            stage if stage.name == name else replace(stage, name=name),
            self.names,
            stage_of=lambda written, at: self._one_stage(written, place, at),
            stages_of=lambda written, at: self._stages(written, place, at),
            data_of=lambda written, at: self._data(written, place, at),
        )

    # Stages

    def _one_stage(self, of: Reference, place: Place, at: Span | None) -> StageId | Reference:
        found = self._stages(of, place, at)
        if len(found) > 1:
            self.report.add(
                "E503",
                f"`{of}` means {len(found)} stages; only one is allowed here",
                at,
                help=f"write `{of.plain}`, or one round of it",
            )
        return found[0]

    def _stages(
        self, of: Reference, place: Place, at: Span | None
    ) -> Sequence[StageId | Reference]:
        """The stages that a reference names; for a missing one, the plain name."""
        if self._no_choice(of, place, at):
            return [_plain(of)]
        if of.rounds == PREVIOUS:
            return [self._previous(of, place, at)]
        rounds = self._rounds(of, place, at)
        if place.rounds and not of.rounds and of.own in place.rounds.stages:
            block, default = place.rounds, (place.round, place.round)
        else:
            block = self.blocks.get(of.rounds)
            default = (block.count, block.count) if block else (0, 0)
        if block is None or of.own not in block.stages or of.output:
            return self._outside(of, at, indexed=rounds is not None)
        if rounds and rounds[1] > block.count:
            self.report.add(
                "E504",
                f"there is no round {rounds[1]} of `{block.name}`",
                at,
                help=f"it has {block.count}",
            )
            return [_plain(of)]
        first, last = rounds or default
        return [StageId(of.name, of.variant, block.name, k) for k in range(first, last + 1)]

    def _no_choice(self, of: Reference, place: Place, at: Span | None) -> bool:
        """Whether the alternative of a reference is never needed, which is reported."""
        wrong = of.otherwise is not None and of.rounds != PREVIOUS
        if wrong:
            repeated = place.rounds is not None and of.own in place.rounds.stages
            self.report.add(
                "E502",
                "the first alternative must be a stage of the previous round",
                at,
                help=f"write `previous.{of.own} or {of.otherwise}`"
                if repeated
                else f"write `{_plain(of)}` or `{of.otherwise}` alone",
            )
        return wrong

    def _outside(
        self, of: Reference, at: Span | None, *, indexed: bool
    ) -> Sequence[StageId | Reference]:
        """The stage that a reference names outside of rounds, if any."""
        stage = StageId(of.name, of.variant)
        if of.rounds or of.output or stage not in self.stages:
            return [_plain(of)]
        if indexed:
            self.report.add(
                "E501",
                f"`{of.plain}` is not repeated: it has no rounds to choose from",
                at,
                help=f"write `{of.plain}`",
            )
        return [stage]

    def _previous(self, of: Reference, place: Place, at: Span | None) -> StageId | Reference:
        """The stage of the round before, or in the first round its replacement."""
        found = self._before(of, place, at)
        if found is None and of.otherwise is None:
            self.report.add(
                "E502",
                "the first round has no previous round",
                at,
                help=f"name an alternative: `{of.plain} or {self._any_stage}`",
            )
        if found is None:
            return self._one_stage(of.otherwise, place, at) if of.otherwise else _plain(of)
        return found

    def _before(self, of: Reference, place: Place, at: Span | None) -> StageId | Reference | None:
        """The stage of the round before; None in the first round.

        Returns: for a stage that cannot exist, its plain name, after reporting it.
        """
        if of.among is not None:
            self.report.add(
                "E501",
                f"`{of.plain}` is the stage of one round: it cannot be indexed",
                at,
                help=f"write `{of.plain}`, or `{of.own}[{of.among}]`",
            )
        if place.rounds is None:
            self.report.add(
                "E502",
                "`previous` can be used only in rounds",
                at,
                help=f"write `{of.otherwise}`" if of.otherwise else "write the name of a stage",
            )
            return _plain(of)
        if of.own not in place.rounds.stages or of.output:
            name = of._replace(rounds="").plain
            self.report.add(
                "E402",
                f"there is no stage `{name}` in the rounds `{place.rounds.name}`",
                at,
                help=did_you_mean(name, place.rounds.stages),
            )
            return _plain(of)
        if place.round == 1:
            return None
        return StageId(of.name, of.variant, place.rounds.name, place.round - 1)

    @cached_property
    def _any_stage(self) -> str:
        """A stage outside of rounds, as an example."""
        training = (
            str(name)
            for name, (stage, place) in self.stages.items()
            if place.rounds is None and stage.has_weights and stage.continued
        )
        return next(training, "anneal")

    def _rounds(self, of: Reference, place: Place, at: Span | None) -> tuple[int, int] | None:
        """The rounds of an index, first and last; None without an index."""
        if of.among is None:
            return None
        found = of.among.numbers(place.round)
        if found is None:
            self.report.add(
                "E501",
                f"the index of `{of}` is not valid here",
                at,
                help=f"write `{of.plain}[round]` or `{of.plain}[1..round]` in rounds, and "
                f"`{of.plain}[2]` elsewhere",
            )
            return (1, 1) if place.rounds else None
        return found

    # Data

    def _data(self, of: Reference, place: Place, at: Span | None) -> DataId | Reference:
        """The dataset that a reference names; created if it is a part of one, or drawn."""
        if self._no_choice(of, place, at):
            return _plain(of)
        if of.rounds == PREVIOUS and self._before(of._replace(output=""), place, at) is None:
            if of.otherwise:
                return self._data(of.otherwise, place, at)
            self.report.add(
                "E502",
                "the first round has no previous round",
                at,
                help=f"write `{of._replace(rounds='').plain}[1..round]`: those of all rounds up to "
                "this one",
            )
            return _plain(of)
        if of.plain in self.recipe.datasets:
            return self._indexed(of.plain, self._rounds(of, place, at), place, at)
        stages = self._stages(of._replace(output=""), place, at)
        drawn = [
            stage
            for stage in stages
            if isinstance(stage, StageId) and of.output in self.stages[stage][0].offers
        ]
        if len(drawn) < len(stages):
            return _plain(of)
        made = _drawn(drawn, of.output)
        self.datasets.setdefault(
            str(made),
            r.Dataset(
                name=str(made),
                kind=self.stages[drawn[0]][0].offers[of.output],
                stages=[str(stage) for stage in drawn],
                output=_FILES[of.output],
                places={"": at} if at else {},
            ),
        )
        return made

    def _indexed(
        self, name: str, rounds: tuple[int, int] | None, place: Place, at: Span | None
    ) -> DataId:
        dataset = self.recipe.datasets[name]
        patterned = [file for file in dataset.files or [] if "{round}" in file]
        if rounds is None:
            if patterned:
                self.report.add(
                    "E505",
                    f"`{name}` has a part for each round",
                    at,
                    help=f"write `{name}[round]` or `{name}[1..round]`",
                )
            return DataId(name)
        part = DataId(name, Index(*rounds))
        made = str(part)
        if made in self.datasets:
            return part
        first, last = rounds
        changes: dict[str, Any] = {"name": made, "tokens": None}
        if patterned:
            numbers = range(first, last + 1)
            files = [f.replace("{round}", str(k)) for k in numbers for f in dataset.files or []]
            changes["files"] = list(dict.fromkeys(files))
        else:
            block = place.rounds or max(
                self.blocks.values(), key=lambda each: each.count, default=None
            )
            hands = block.count if block else 0
            if last > hands:
                self.report.add(
                    "E504",
                    f"there is no round {last} to deal `{name}` out to",
                    at,
                    help=f"`{block.name}` has {hands}" if block else f"write `{name}`",
                )
            changes["deal"] = (hands, first, last)
        if dataset.candidates:
            inner = Place(place.rounds, last) if place.rounds else Place()
            changes["candidates"] = self._candidate(dataset, inner)
        self.datasets[made] = replace(dataset, **changes)
        return part

    def _candidates(self, name: str, dataset: r.Dataset) -> None:
        if any("{round}" in file for file in dataset.files or []):
            return
        self.datasets[name] = replace(dataset, candidates=self._candidate(dataset, Place()))

    def _candidate(self, dataset: r.Dataset, place: Place) -> str:
        """The stage whose draws are the candidates of a data set."""
        assert dataset.candidates
        of = self.names.parse(dataset.candidates)
        return str(self._one_stage(of, place, dataset.at("candidates")))


def _repeated(name: str, stage: r.Stage | r.Rounds) -> Iterator[tuple[StageId, r.Stage, Place]]:
    """The stages that a block of the recipe stands for, round by round, and their places."""
    if not isinstance(stage, r.Rounds):
        yield StageId.parse(name), stage, Place()
        return
    for number in range(1, stage.count + 1):
        for inner, repeated in stage.stages.items():
            own = StageId.parse(inner)
            yield own._replace(rounds=name, round=number), repeated, Place(stage, number)


def _drawn(stages: list[StageId], output: str) -> DataId:
    """The name of the draws of one stage, or of several rounds of it."""
    first, last = stages[0], stages[-1]
    if first == last:
        return DataId(f"{first}.{output}" if output else str(first))
    return DataId(str(first._replace(round=0)), Index(first.round, last.round), output)


def _plain(of: Reference) -> Reference:
    """The reference without its index and alternative, as missing names are shown."""
    return of._replace(among=None, otherwise=None)
