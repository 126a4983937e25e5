"""Rounds to stages, and references to names: after this pass every reference is one plain name.

The stage `rm` of round 2 of `rounds align 6` becomes `align.2.rm`; after the block `align.rm` is
the stage of the last round, and `align.rm[2]` that of the second. A dataset that is indexed becomes
one dataset a round or range of rounds, and what a sample stage has drawn becomes a dataset.
"""

import re
from typing import Any, NamedTuple

from ..spec import recipe as r
from ..spec.diagnostics import Report, did_you_mean
from ..spec.record import replace
from ..spec.source import Span
from .program import Program
from .references import with_references
from .weights import published

_REFERENCE = re.compile(
    r"(?P<name>[^\[\] ]+)(?:\[(?P<first>[^.\[\]]+)(?:\.\.(?P<last>[^.\[\]]+))?\])?"
)
_OUTPUTS = {"": ("drafts.jsonl", "dialogs"), "pairs": ("pairs.jsonl", "preferences")}
"""What a sample stage offers as data: file and kind."""


class Index(NamedTuple):
    """`[first..last]`; with one number both are the same."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"[{self.first}]" if self.first == self.last else f"[{self.first}..{self.last}]"


class Place(NamedTuple):
    """Where a reference stands: in which round of which block, if in any."""

    rounds: r.Rounds | None = None
    round: int = 0


def unroll(program: Program, report: Report) -> Program:
    """Replaces the recipe by one without rounds, whose references are names of what there is."""
    return replace(program, recipe=_Unroller(program.recipe, report).run())


class _Unroller:
    def __init__(self, recipe: r.Recipe, report: Report) -> None:
        self.recipe = recipe
        self.report = report
        self.datasets = dict(recipe.datasets)
        self.blocks = {n: b for n, b in recipe.stages.items() if isinstance(b, r.Rounds)}
        self.kinds: dict[str, type[r.Stage]] = {}
        for name, stage in recipe.stages.items():
            if isinstance(stage, r.Rounds):
                for inner, repeated in stage.stages.items():
                    for number in range(1, stage.count + 1):
                        self.kinds[f"{name}.{number}.{inner}"] = type(repeated)
            else:
                self.kinds[name] = type(stage)

    def run(self) -> r.Recipe:
        stages: dict[str, r.Stage | r.Rounds] = {}
        for name, stage in self.recipe.stages.items():
            if not isinstance(stage, r.Rounds):
                stages[name] = self._stage(stage, name, Place())
                continue
            for number in range(1, stage.count + 1):
                for inner, repeated in stage.stages.items():
                    whole = f"{name}.{number}.{inner}"
                    stages[whole] = self._stage(repeated, whole, Place(stage, number))
        for name, dataset in list(self.datasets.items()):
            if dataset.candidates and name in self.recipe.datasets:
                self._candidates(name, dataset)
        stages = {**published(self.recipe.models, stages, self.report), **stages}
        return replace(self.recipe, stages=stages, datasets=self.datasets)

    def _stage(self, stage: r.Stage, name: str, place: Place) -> r.Stage:
        """The stage under its own name, every reference in it replaced."""
        return with_references(
            replace(stage, name=name),
            stage_of=lambda written, at: self._one_stage(written, place, at),
            stages_of=lambda written, at: self._stages(written, place, at),
            data_of=lambda written, at: self._data(written, place, at),
        )

    # Stages

    def _one_stage(self, written: str, place: Place, at: Span | None) -> str:
        names = self._stages(written, place, at)
        if len(names) > 1:
            self.report.add(
                "E503",
                f"`{written}` are {len(names)} stages; one is meant here",
                at,
                help=f"write `{written.partition('[')[0]}`, or one round of it",
            )
        return names[0]

    def _stages(self, written: str, place: Place, at: Span | None) -> list[str]:
        """The stages that a reference names; one that there is not is left as it is written."""
        first, _, other = written.partition(" or ")
        if other and not first.startswith("previous."):
            self.report.add(
                "E502",
                "a choice begins with a stage of the round before",
                at,
                help=f"write `previous.{first} or {other}`",
            )
            return [written]
        name, index = self._parse(first, place, at)
        if name.startswith("previous."):
            return [self._previous(name.removeprefix("previous."), other, place, at)]
        if place.rounds and name in place.rounds.stages:
            block, inner = place.rounds, name
            default = Index(place.round, place.round)
        else:
            outer, _, inner = name.partition(".")
            block = self.blocks.get(outer)
            if block is None or inner not in block.stages:
                if index and name in self.recipe.stages:
                    self.report.add(
                        "E501",
                        f"`{name}` is not repeated: it has no rounds to choose from",
                        at,
                        help=f"write `{name}`",
                    )
                return [name]
            default = Index(block.count, block.count)
        if index and index.last > block.count:
            self.report.add(
                "E504",
                f"there is no round {index.last} of `{block.name}`",
                at,
                help=f"it has {block.count}",
            )
            return [name]
        span = index or default
        return [f"{block.name}.{k}.{inner}" for k in range(span.first, span.last + 1)]

    def _previous(self, name: str, other: str, place: Place, at: Span | None) -> str:
        if place.rounds is None:
            self.report.add(
                "E502",
                "`previous` has a meaning in rounds only",
                at,
                help=f"write `{other}`" if other else "write the name of a stage",
            )
            return name
        if name not in place.rounds.stages:
            self.report.add(
                "E402",
                f"there is no stage `{name}` in the rounds `{place.rounds.name}`",
                at,
                help=did_you_mean(name, place.rounds.stages),
            )
            return name
        if place.round > 1:
            return f"{place.rounds.name}.{place.round - 1}.{name}"
        if not other:
            self.report.add(
                "E502",
                "the first round has none before it",
                at,
                help=f"say what stands there instead: `previous.{name} or anneal`",
            )
            return name
        return self._one_stage(other, place, at)

    def _parse(self, written: str, place: Place, at: Span | None) -> tuple[str, Index | None]:
        match = _REFERENCE.fullmatch(written)
        name = match["name"] if match else written.partition("[")[0]
        if match and match["first"] is None:
            return name, None
        ends = [match["first"], match["last"] or match["first"]] if match else []
        numbers = [place.round if end == "round" and place.rounds else _number(end) for end in ends]
        first, last = numbers if numbers else (None, None)
        if first is None or last is None or not 1 <= first <= last:
            self.report.add(
                "E501",
                f"`{written}` has no index that means something here",
                at,
                help=f"write `{name}[round]` or `{name}[1..round]` in rounds, and `{name}[2]` "
                "elsewhere",
            )
            return name, Index(1, 1) if place.rounds else None
        return name, Index(first, last)

    # Data

    def _data(self, written: str, place: Place, at: Span | None) -> str:
        """The dataset that a reference names; made where it is a part of one, or drawn."""
        name, index = self._parse(written, place, at)
        if name in self.recipe.datasets:
            return self._indexed(name, index, place, at)
        for output, (file, kind) in _OUTPUTS.items():
            stage = name.removesuffix(f".{output}") if output else name
            if output and stage == name:
                continue
            of = self._stages(f"{stage}{index or ''}", place, at)
            if all(self.kinds.get(one) is r.Sample for one in of):
                shown = of[0]
                if len(of) > 1:
                    block, _, inner = of[0].split(".", 2)
                    shown = f"{block}.{inner}{index}"
                made = shown + (f".{output}" if output else "")
                self.datasets.setdefault(
                    made,
                    r.Dataset(
                        name=made, kind=kind, stages=of, output=file, places={"": at} if at else {}
                    ),
                )
                return made
        return name

    def _indexed(self, name: str, index: Index | None, place: Place, at: Span | None) -> str:
        dataset = self.recipe.datasets[name]
        patterned = [file for file in dataset.files or [] if "{round}" in file]
        if index is None:
            if patterned:
                self.report.add(
                    "E505",
                    f"`{name}` is one dataset a round",
                    at,
                    help=f"write `{name}[round]` or `{name}[1..round]`",
                )
            return name
        made = f"{name}{index}"
        if made in self.datasets:
            return made
        changes: dict[str, Any] = {"name": made, "tokens": None}
        if patterned:
            rounds = range(index.first, index.last + 1)
            files = [f.replace("{round}", str(k)) for k in rounds for f in dataset.files or []]
            changes["files"] = list(dict.fromkeys(files))
        else:
            block = place.rounds or max(
                self.blocks.values(), key=lambda each: each.count, default=None
            )
            hands = block.count if block else 0
            if index.last > hands:
                self.report.add(
                    "E504",
                    f"there is no round {index.last} to deal `{name}` out to",
                    at,
                    help=f"`{block.name}` has {hands}" if block else f"write `{name}`",
                )
            changes["deal"] = (hands, index.first, index.last)
        if dataset.candidates:
            inner = Place(place.rounds, index.last) if place.rounds else Place()
            changes["candidates"] = self._one_stage(
                dataset.candidates, inner, dataset.at("candidates")
            )
        self.datasets[made] = replace(dataset, **changes)
        return made

    def _candidates(self, name: str, dataset: r.Dataset) -> None:
        assert dataset.candidates
        if any("{round}" in file for file in dataset.files or []):
            return
        stage = self._one_stage(dataset.candidates, Place(), dataset.at("candidates"))
        self.datasets[name] = replace(dataset, candidates=stage)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 6 else None
