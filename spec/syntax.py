"""The syntax tree: what was written, where, and nothing about what it means."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from .source import Span


@dataclass(frozen=True, slots=True)
class Word:
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its suffix applied, and its unit as written.

    `percent` and `factor` mark the suffixes `%` (value 0.5 for `50%`) and `x`.
    """

    value: Fraction
    suffix: str
    unit: Word | None
    text: str
    span: Span

    @property
    def percent(self) -> bool:
        return self.suffix == "%"

    @property
    def factor(self) -> bool:
        return self.suffix == "x"


@dataclass(frozen=True, slots=True)
class Path:
    words: tuple[Word, ...]
    span: Span

    @property
    def name(self) -> str:
        return ".".join(word.name for word in self.words)


@dataclass(frozen=True, slots=True)
class List:
    items: "tuple[Operand, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Braces:
    """`{ name value, name = value, name, … }`."""

    items: "tuple[Item, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Tagged:
    """`name { … }`."""

    tag: Word
    braces: Braces
    span: Span


@dataclass(frozen=True, slots=True)
class Scaled:
    """`last with { name 1.5x }`."""

    base: Word
    factors: Braces
    span: Span


@dataclass(frozen=True, slots=True)
class Counted:
    """`8 of "H100 80GB"`."""

    count: Number
    what: Text
    span: Span


@dataclass(frozen=True, slots=True)
class Periodic:
    """`polyak every 2 steps over 50%`."""

    what: Word
    every: Number
    over: Number | None
    span: Span


@dataclass(frozen=True, slots=True)
class Bound:
    """How long a segment of a schedule lasts: `for` from its beginning, `until` from the stage's."""

    relative: bool
    quantity: Number
    span: Span


@dataclass(frozen=True, slots=True)
class Hold:
    value: "Operand"
    bound: Bound | None
    span: Span


@dataclass(frozen=True, slots=True)
class Ramp:
    start: "Operand | None"
    end: "Operand"
    shape: str
    over: Number | None
    bound: Bound | None
    span: Span


@dataclass(frozen=True, slots=True)
class Schedule:
    """Two or more segments, or one that ramps or has a bound; a plain value is its operand."""

    segments: tuple[Hold | Ramp, ...]
    span: Span


Operand: TypeAlias = Number | Text | Path | List | Braces | Tagged | Scaled
Value: TypeAlias = Operand | Schedule | Periodic | Counted


@dataclass(frozen=True, slots=True)
class Claim:
    """The tolerance and source of an expectation."""

    within: Number
    cite: Text | None


@dataclass(frozen=True, slots=True)
class Assign:
    path: Path
    value: Value
    claim: Claim | None
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """`name value`, without an equals sign: a share of a mixture, a degree of a placement."""

    word: Word
    value: Operand
    span: Span


@dataclass(frozen=True, slots=True)
class Every:
    """`checkpoint every 100 steps`."""

    word: Word
    every: Number
    span: Span


@dataclass(frozen=True, slots=True)
class Flag:
    word: Word
    span: Span


@dataclass(frozen=True, slots=True)
class Require:
    measure: Word
    argument: Word | None
    op: str
    value: Number
    of: Word | None
    span: Span


@dataclass(frozen=True, slots=True)
class Otherwise:
    """`otherwise extend LENGTH at most TIMES`."""

    length: Number
    times: Number
    span: Span


@dataclass(frozen=True, slots=True)
class Use:
    file: Text
    span: Span


@dataclass(frozen=True, slots=True)
class Let:
    word: Word
    value: Value
    span: Span


@dataclass(frozen=True, slots=True)
class Block:
    keyword: Word
    labels: tuple[Word | Number, ...]
    kind: Word | None
    items: "tuple[Item, ...]"
    span: Span

    @property
    def head(self) -> Span:
        """The keyword and the name: the place to point to for the block as a whole."""
        last = self.kind or (self.labels[-1] if self.labels else self.keyword)
        return Span(self.span.source, self.keyword.span.start, last.span.end)


Item: TypeAlias = Use | Let | Block | Assign | Entry | Every | Flag | Require | Otherwise
