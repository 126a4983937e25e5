"""How specs refer to stages and data: values, with one reader and one text.

The fields of recipes hold the texts. What becomes of a reference in a program and in a plan are the
values of `compiler/ids.py`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

PREVIOUS, ROUND, PAIRS = "previous", "round", "pairs"
"""Words that references give a meaning: the round before, this round, and what a judge makes of
draws."""
OUTPUTS = (PAIRS,)
"""What a stage offers as data beside its draws."""
MOST_DIGITS = 5
"""Of the number of a round: what is longer is none."""
_NUMBERS = re.compile(r"\.\d+(?=\.)|\[\d+(?:\.\.\d+)?\]")


class Index(NamedTuple):
    """`[2]`, `[round]` or `[1..round]`: rounds to choose from, the last included.

    Attributes:
        first: a number, `round`, or what stands there and is neither.
        last: the same; of one round, as `first`.
    """

    first: int | str
    last: int | str

    @classmethod
    def parse(cls, text: str) -> "Index":
        """The index in a text without its brackets; any text is one, whatever it means."""
        ends = [_end(end) for end in text.split("..")]
        return cls(ends[0], ends[1]) if len(ends) == 2 else cls(_end(text), _end(text))

    @classmethod
    def of(cls, number: int) -> "Index":
        """The index of one round."""
        return cls(number, number)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"

    def numbers(self, round: int = 0) -> tuple[int, int] | None:
        """The first and the last round; None where there is no telling or they are none.

        Args:
            round: that in which the index stands; 0 outside of rounds.
        """
        first, last = (
            round if end == ROUND else end if isinstance(end, int) else 0 for end in self
        )
        return (first, last) if 1 <= first <= last else None


def _end(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else text


class Reference(NamedTuple):
    """A stage or data set as a spec names it: `hot.align.drafts.pairs[1..round]`.

    Attributes:
        name: of the stage or data set; dotted where nothing has such a name.
        rounds: the block of rounds that it stands in, or `previous`; "" where none is said.
        variant: the variant whose stage is meant; "" for the recipe's own.
        output: `pairs` where not the draws of a stage are meant, but the pairs made of them.
        among: the rounds that are meant; None where none are said.
        otherwise: what is meant in the first round, `previous.chat or anneal`.
    """

    name: str
    rounds: str = ""
    variant: str = ""
    output: str = ""
    among: Index | None = None
    otherwise: "Reference | None" = None

    def __str__(self) -> str:
        index = "" if self.among is None else f"[{self.among}]"
        otherwise = "" if self.otherwise is None else f" or {self.otherwise}"
        return f"{self.plain}{index}{otherwise}"

    @property
    def plain(self) -> str:
        """The reference without index and alternative: `hot.align.drafts.pairs`."""
        return dotted(self.variant, self.rounds, self.name, self.output)

    @property
    def own(self) -> str:
        """What the stage is called in its rounds, or outside of any: `drafts`, `hot.drafts`."""
        return dotted(self.variant, self.name)

    @property
    def original(self) -> "Reference":
        """What the recipe has in place of what is of a variant."""
        return self._replace(variant="")

    @property
    def choices(self) -> "tuple[Reference, ...]":
        """What is meant in later rounds and in the first, each without an alternative."""
        if self.otherwise is None:
            return (self,)
        return (self._replace(otherwise=None), *self.otherwise.choices)

    def mapped(self, change: "Callable[[Reference], Reference]") -> "Reference":
        """The reference with each of its choices changed."""
        otherwise = self.otherwise.mapped(change) if self.otherwise else None
        return change(self._replace(otherwise=None))._replace(otherwise=otherwise)


class Names(NamedTuple):
    """Names that tell the parts of a dotted name apart: one of a variant, then one of rounds.

    Attributes:
        variants: the recipe's.
        rounds: its blocks of rounds, which come first where a variant has the same name.
    """

    variants: Collection[str] = ()
    rounds: Collection[str] = ()

    def parse(self, text: str) -> Reference:
        """The reference in a text, which is any that the grammar has."""
        first, _, otherwise = text.partition(" or ")
        dotted, bracket, index = first.partition("[")
        return self.reference(
            dotted.split("."),
            Index.parse(index.removesuffix("]")) if bracket else None,
            self.parse(otherwise) if otherwise else None,
        )

    def reference(
        self,
        words: Sequence[str],
        index: Index | None = None,
        otherwise: Reference | None = None,
    ) -> Reference:
        """The reference of a dotted name, of which the words are given."""
        variant = rounds = output = ""
        if len(words) > 1 and words[0] in self.variants and words[0] not in self.rounds:
            variant, *words = words
        if len(words) > 1 and (words[0] == PREVIOUS or words[0] in self.rounds):
            rounds, *words = words
        if len(words) > 1 and words[-1] in OUTPUTS:
            *words, output = words
        return Reference(".".join(words), rounds, variant, output, index, otherwise)


def without_rounds(text: str) -> str:
    """A message without the numbers of rounds in the names of stages and data sets."""
    return _NUMBERS.sub("", text)


def dotted(*parts: str) -> str:
    """A dotted name of those of its parts that there are."""
    return ".".join(part for part in parts if part)
