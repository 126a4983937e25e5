"""How specs refer to stages and data: values, with one reader and one text form.

The fields of recipes hold the text. `compiler/ids.py` has the values that references become in a
program and in a plan.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

PREVIOUS, ROUND, PAIRS = "previous", "round", "pairs"
"""Words with a meaning in references: the round before, this round, and the pairs that a judge
makes of draws."""
OUTPUTS = (PAIRS,)
"""What a stage offers as data besides its draws."""
MOST_DIGITS = 5
"""Digits of a round's number: anything longer is not a number."""
_NUMBERS = re.compile(r"\.\d+(?=\.)|\[\d+(?:\.\.\d+)?\]")


class Index(NamedTuple):
    """`[2]`, `[round]` or `[1..round]`: rounds to choose from, the last included.

    Attributes:
        first: a number or `round`; any other text is kept as written.
        last: likewise; for one round, the same as `first`.
    """

    first: int | str
    last: int | str

    @classmethod
    def parse(cls, text: str) -> "Index":
        """The index in a text without its brackets; accepts any text."""
        ends = [_end(end) for end in text.split("..")]
        return cls(ends[0], ends[1]) if len(ends) == 2 else cls(_end(text), _end(text))

    @classmethod
    def of(cls, number: int) -> "Index":
        """The index of one round."""
        return cls(number, number)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}..{self.last}"

    def numbers(self, round: int = 0) -> tuple[int, int] | None:
        """The first and the last round; None if they are unknown or invalid.

        Args:
            round: the round that the index is in; 0 outside of rounds.
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
        name: of the stage or data set; dotted if nothing has that name.
        rounds: its block of rounds, or `previous`; "" if none is given.
        variant: the variant that the stage is in; "" for the recipe's own.
        output: `pairs` for the pairs made of a stage's draws; "" for the draws.
        among: the rounds to choose from; None if none are given.
        otherwise: the reference in the first round: `previous.chat or anneal`.
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
        """The stage's name within its rounds, or outside of any: `drafts`, `hot.drafts`."""
        return dotted(self.variant, self.name)

    @property
    def original(self) -> "Reference":
        """The same reference in the recipe itself, without the variant."""
        return self._replace(variant="")

    @property
    def choices(self) -> "tuple[Reference, ...]":
        """The references for later rounds and for the first, each without an alternative."""
        if self.otherwise is None:
            return (self,)
        return (self._replace(otherwise=None), *self.otherwise.choices)

    def mapped(self, change: "Callable[[Reference], Reference]") -> "Reference":
        """The reference with `change` applied to each of its choices."""
        otherwise = self.otherwise.mapped(change) if self.otherwise else None
        return change(self._replace(otherwise=None))._replace(otherwise=otherwise)


class Names(NamedTuple):
    """Names that split a dotted name: first a variant's, then that of a block of rounds.

    Attributes:
        variants: of the recipe.
        rounds: its blocks of rounds, which take precedence over variants of the same name.
    """

    variants: Collection[str] = ()
    rounds: Collection[str] = ()

    def parse(self, text: str) -> Reference:
        """The reference in a text that the grammar accepts."""
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
        """The reference of a dotted name, given as words."""
        variant = rounds = output = ""
        if len(words) > 1 and words[0] in self.variants and words[0] not in self.rounds:
            variant, *words = words
        if len(words) > 1 and (words[0] == PREVIOUS or words[0] in self.rounds):
            rounds, *words = words
        if len(words) > 1 and words[-1] in OUTPUTS:
            *words, output = words
        return Reference(".".join(words), rounds, variant, output, index, otherwise)


def without_rounds(text: str) -> str:
    """A message without round numbers in the names of stages and data sets."""
    return _NUMBERS.sub("", text)


def dotted(*parts: str) -> str:
    """Joins the non-empty parts with dots."""
    return ".".join(part for part in parts if part)
