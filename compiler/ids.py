"""Identifiers of stages, data and figures in programs and plans.

They are values where they are taken apart, and texts where they are keys, in programs as in plans.
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
        name: what its block is called.
        variant: the variant that it is taken from; "" for the recipe's own.
        rounds: the block of rounds that it stands in; "" outside of any.
        round: its round, from one; 0 outside of any.
    """

    name: str
    variant: str = ""
    rounds: str = ""
    round: int = 0

    @classmethod
    def parse(cls, text: str) -> "StageId":
        """The stage of a name: only those in rounds have a number in it."""
        words = text.split(".")
        rounds, round = "", 0
        if len(words) > 2 and words[1].isdecimal():
            rounds, round, words = words[0], int(words[1]), words[2:]
        return cls(words[-1], ".".join(words[:-1]), rounds, round)

    def __str__(self) -> str:
        return dotted(self.unit, self.own)

    @property
    def own(self) -> str:
        """What the stage is called in its round, or outside of any: `chat`, `hot.chat`."""
        return dotted(self.variant, self.name)

    @property
    def unit(self) -> str:
        """The round that the stage is of, `align.2`; "" outside of rounds."""
        return f"{self.rounds}.{self.round}" if self.round else self.rounds

    @property
    def group(self) -> str:
        """All that stands before the name: `align.2`, `hot`, `align.2.hot`, ""."""
        return dotted(self.unit, self.variant)

    @property
    def original(self) -> "StageId":
        """The stage of the recipe that one of a variant stands beside; itself where it is none."""
        return self._replace(variant="")

    @property
    def reference(self) -> Reference:
        """The stage as specs name it, whatever its round: `hot.align.chat`."""
        return Reference(self.name, self.rounds, self.variant)


class SegmentId(NamedTuple):
    """A segment of a stage, which is one job: `pretrain.2`, or extended by a gate `pretrain.2+1`.

    Attributes:
        stage: its name in the program.
        number: of the segment, from one.
        attempt: of the gate behind it, from one; 0 for the segment itself.
    """

    stage: str
    number: int
    attempt: int = 0

    @classmethod
    def parse(cls, text: str) -> "SegmentId | None":
        """The segment in a text; None where it does not end with a number."""
        match = _SEGMENT.fullmatch(text)
        return cls(match[1], int(match[2]), int(match[3] or 0)) if match else None

    def __str__(self) -> str:
        return f"{self.stage}.{self.place}"

    @property
    def place(self) -> str:
        """Which of its stage's segments it is: `2`, `2+1`."""
        return f"{self.number}+{self.attempt}" if self.attempt else f"{self.number}"


def rounds(stages: Iterable[str]) -> dict[str, int]:
    """The blocks of rounds that stages stand in → how many rounds they have."""
    found: dict[str, int] = {}
    for stage in map(StageId.parse, stages):
        if stage.rounds:
            found[stage.rounds] = max(stage.round, found.get(stage.rounds, 0))
    return found


class DataId(NamedTuple):
    """Data of a program or plan: `web`, `ranked[1..2]`, `drafts.pairs`, `align.drafts[1..2].pairs`.

    Attributes:
        name: of the data set, or of the stages whose output this is.
        among: the rounds whose part or whose output it is; None where the name says all.
        output: of the stages of several rounds, which of their outputs; without an index it is a
            part of the name.
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
        """The figure in a text: the last word is its name."""
        stage, _, figure = text.rpartition(".")
        return cls(stage, figure)

    def __str__(self) -> str:
        return dotted(self.stage, self.figure)
