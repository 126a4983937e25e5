"""Identifiers of stages, data and figures in programs and plans.

They are values while code takes them apart, and texts as keys, both in programs and in plans.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..spec.reference import Index, Reference, dotted

_DATA = re.compile(r"(?P<name>[^\[\]]*)(?:\[(?P<index>[^\[\]]*)\](?:\.(?P<output>[^.\[\]]*))?)?")
_SEGMENT = re.compile(r"(.+)\.([0-9]+)(?:\+([0-9]+))?")


class StageId(NamedTuple):
    """A stage of a program or plan: `pretrain`, `hot.anneal`, `align.2.chat`, `align.2.hot.chat`.

    Attributes:
        name: of its block.
        variant: the variant that it comes from; "" for the recipe's own.
        rounds: the block of rounds that contains it; "" outside of any.
        round: its round, from one; 0 outside of any.
    """

    name: str
    variant: str = ""
    rounds: str = ""
    round: int = 0

    @classmethod
    def parse(cls, text: str) -> "StageId":
        """The stage with a name; only names of stages in rounds contain a number."""
        words = text.split(".")
        rounds, round = "", 0
        if len(words) > 2 and words[1].isdecimal():
            rounds, round, words = words[0], int(words[1]), words[2:]
        return cls(words[-1], ".".join(words[:-1]), rounds, round)

    def __str__(self) -> str:
        return dotted(self.unit, self.own)

    @property
    def own(self) -> str:
        """The stage's name within its round, or outside of any: `chat`, `hot.chat`."""
        return dotted(self.variant, self.name)

    @property
    def unit(self) -> str:
        """The round of the stage, `align.2`; "" outside of rounds."""
        return f"{self.rounds}.{self.round}" if self.round else self.rounds

    @property
    def group(self) -> str:
        """Everything before the name: `align.2`, `hot`, `align.2.hot`, ""."""
        return dotted(self.unit, self.variant)

    @property
    def original(self) -> "StageId":
        """The recipe's counterpart of a variant's stage; itself for the recipe's own."""
        return self._replace(variant="")

    @property
    def reference(self) -> Reference:
        """The stage as specs name it, whatever its round: `hot.align.chat`."""
        return Reference(self.name, self.rounds, self.variant)


class SegmentId(NamedTuple):
    """A segment of a stage, which is one job: `pretrain.2`; extended by a gate: `pretrain.2+1`.

    Attributes:
        stage: its name in the program.
        number: of the segment, from one.
        attempt: of the gate after it, from one; 0 for the segment itself.
    """

    stage: str
    number: int
    attempt: int = 0

    @classmethod
    def parse(cls, text: str) -> "SegmentId | None":
        """The segment in a text; None if it does not end with a number."""
        match = _SEGMENT.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3] or 0)) if match else None

    def __str__(self) -> str:
        return f"{self.stage}.{self.place}"

    @property
    def place(self) -> str:
        """The position among the segments of its stage: `2`, `2+1`."""
        return f"{self.number}+{self.attempt}" if self.attempt else f"{self.number}"


def rounds(stages: Iterable[str]) -> dict[str, int]:
    """Blocks of rounds that contain stages → their number of rounds."""
    found: dict[str, int] = {}
    for stage in map(StageId.parse, stages):
        if stage.rounds:
            found[stage.rounds] = max(stage.round, found.get(stage.rounds, 0))
    return found


class DataId(NamedTuple):
    """Data of a program or plan: `web`, `ranked[1..2]`, `drafts.pairs`, `align.drafts[1..2].pairs`.

    Attributes:
        name: of the data set, or of the stages that output it.
        among: the rounds whose part or output it is; None if the name says it all.
        output: which output of the stages of several rounds; without `among`, it is part of the
            name.
    """

    name: str
    among: Index | None = None
    output: str = ""

    @classmethod
    def parse(cls, text: str) -> "DataId":
        match = _DATA.fullmatch(text)
        if match is None or match["index"] is None:
            return cls(text)
        return cls(match["name"], Index.parse(match["index"]), match["output"] or "")

    def __str__(self) -> str:
        index = "" if self.among is None else f"[{self.among}]"
        return dotted(f"{self.name}{index}", self.output)


class FigureId(NamedTuple):
    """A figure of a plan or of one of its stages: `parameters`, `pretrain.tokens`.

    Attributes:
        stage: as the spec names it; "" for the whole plan.
        figure: its name.
    """

    stage: str
    figure: str

    @classmethod
    def parse(cls, text: str) -> "FigureId":
        """The figure in a text: its name is the last word."""
        stage, _, figure = text.rpartition(".")
        return cls(stage, figure)

    def __str__(self) -> str:
        return dotted(self.stage, self.figure)
