"""The syntax tree: what was written, and where, without its meaning.

Nodes are named tuples, the standard library's records that are fastest to make: checking a spec
makes many and may take only 0.1 s.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from .source import Span


class Word(NamedTuple):
    """A name or a keyword."""

    name: str
    span: Span


class Text(NamedTuple):
    """A text in quotes, with its escapes resolved."""

    value: str
    span: Span


class Number(NamedTuple):
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


class Path(NamedTuple):
    """A name. In place of a number or a text, it is that of a `let`."""

    words: tuple[Word, ...]
    span: Span

    @property
    def name(self) -> str:
        return ".".join(word.name for word in self.words)


class Range(NamedTuple):
    """`1..round`."""

    first: Number
    last: Number | Path
    span: Span

    @property
    def name(self) -> str:
        return f"{_index(self.first)}..{_index(self.last)}"


class List(NamedTuple):
    """`[a, b]`."""

    items: "tuple[Operand | Range, ...]"
    span: Span


class Indexed(NamedTuple):
    """`preferences[1..round]`."""

    path: Path
    among: List
    span: Span

    @property
    def name(self) -> str:
        return f"{self.path.name}[{', '.join(_index(item) for item in self.among.items)}]"


class Either(NamedTuple):
    """`previous.chat or anneal`."""

    first: Path | Indexed
    second: Path | Indexed
    span: Span

    @property
    def name(self) -> str:
        return f"{self.first.name} or {self.second.name}"


def _index(item: object) -> str:
    """An index as text; anything else stays recognisably invalid."""
    if isinstance(item, Number):
        return item.text
    return item.name if isinstance(item, Path | Range) else "…"


class Braces(NamedTuple):
    """`{ name value, name = value, name, … }`."""

    items: "tuple[Item, ...]"
    span: Span


class Tagged(NamedTuple):
    """`name { … }`."""

    tag: Word
    braces: Braces
    span: Span


class Scaled(NamedTuple):
    """`last with { name 1.5x }`."""

    base: Word
    factors: Braces
    span: Span


class Counted(NamedTuple):
    """`8 of "H100 80GB"`."""

    number: Number | Path
    what: Text | Path
    span: Span


class Sized(NamedTuple):
    """`budget 60%`."""

    what: Word
    size: Number
    span: Span


class Periodic(NamedTuple):
    """`polyak every 2 steps over 50%`."""

    what: Word
    every: Number | Path
    over: Number | Path | None
    span: Span


class Bound(NamedTuple):
    """How long a segment lasts: `for` from its own beginning, `until` from the stage's."""

    relative: bool
    quantity: Number | Path
    span: Span


class Hold(NamedTuple):
    """A segment that keeps a value: `3e-4 for 10%`."""

    value: "Operand"
    bound: Bound | None
    span: Span


class Ramp(NamedTuple):
    """A segment that goes from one value to another: `0 -> 3e-4 cosine over 20% for 10%`.

    Attributes:
        levels: how far apart its levels are, as in `32 seqs -> 64 seqs in levels of 16 seqs`.
    """

    start: "Operand | None"
    end: "Operand"
    shape: str
    over: Number | Path | None
    bound: Bound | None
    span: Span
    levels: Number | Path | None = None


class Repeat(NamedTuple):
    """Segments that come several times: `repeat 4 times { 3e-4 -> 3e-5 cosine for 10% }`."""

    times: Number | Path
    segments: "tuple[Hold | Ramp | Repeat, ...]"
    span: Span


class Schedule(NamedTuple):
    """Two or more segments, or one that ramps, is repeated or has a bound; a plain value is its
    operand."""

    segments: tuple[Hold | Ramp | Repeat, ...]
    span: Span

    def once(self) -> Iterator[Hold | Ramp]:
        """Each segment that is written, those of a `repeat` once."""
        waiting = list(self.segments)
        while waiting:
            each = waiting.pop(0)
            if isinstance(each, Repeat):
                waiting[:0] = each.segments
            else:
                yield each


Operand: TypeAlias = Number | Text | Path | Indexed | Either | List | Braces | Tagged | Scaled
Value: TypeAlias = Operand | Range | Schedule | Periodic | Counted | Sized


class Reason(NamedTuple):
    """`because "why"` or `contradicted "by what"`: why a claim may be far off."""

    contradicted: bool
    text: Text | Path
    span: Span


class Claim(NamedTuple):
    """The tolerance of an expectation."""

    within: Number | Path
    reason: Reason | None


class Origin(NamedTuple):
    """`cite "§3.4"` or `assumed "why"`: where a value comes from."""

    assumed: bool
    text: Text | Path
    span: Span


class Assign(NamedTuple):
    """`path = value`; `at` is the point in a stage that an expectation is about."""

    path: Path
    at: Number | Path | None
    value: Value
    claim: Claim | None
    origin: Origin | None
    span: Span


class Entry(NamedTuple):
    """`name value`, without an equals sign: a share of a mixture, a degree of a placement."""

    word: Word | Path | Indexed
    value: Operand
    span: Span


class Every(NamedTuple):
    """`checkpoint every 100 steps`."""

    word: Word
    every: Number | Path
    span: Span


class Keep(NamedTuple):
    """`keep last 2`, `keep every 5000 steps`, `keep all`.

    Attributes:
        how: "last", "every" or "all".
        amount: None after "all".
    """

    word: Word
    how: str
    amount: Number | Path | None
    span: Span


class Flag(NamedTuple):
    """A word alone: `bytes`."""

    word: Word
    span: Span


class Require(NamedTuple):
    """`require loss(short) <= 102% of start`."""

    measure: Word
    argument: Word | None
    op: str
    value: Number | Path
    of: Word | None
    span: Span


class Otherwise(NamedTuple):
    """`otherwise extend LENGTH at most TIMES`."""

    length: Number | Path
    times: Number | Path
    span: Span


class Filter(NamedTuple):
    """`keep 10% where quality.loss > 4.0`, `drop where url in "sites.txt"`."""

    word: Word
    share: Number | Path | None
    what: Path
    op: str
    value: Number | Text | Path
    span: Span


class Alike(NamedTuple):
    """`drop similar > 90%`."""

    word: Word
    what: Word
    op: str
    value: Number | Path
    span: Span


class Allow(NamedTuple):
    """`allow W601 "the ablation needs it"`."""

    code: Word
    reason: Text
    span: Span


class Open(NamedTuple):
    """`open lr "the source gives the rate of an adapter"`: an attribute that is left open."""

    attribute: Word
    reason: Text
    span: Span


class Use(NamedTuple):
    """`use "data.etude"`."""

    file: Text
    span: Span


class Let(NamedTuple):
    """`let peak = 3e-4`."""

    word: Word
    value: Value
    span: Span


class Block(NamedTuple):
    """`stage pretrain: train { … }`; a group without a name has no labels."""

    keyword: Word
    labels: tuple[Word | Number, ...]
    kind: Word | None
    items: "tuple[Item, ...]"
    span: Span

    @property
    def head(self) -> Span:
        """The keyword and the name: the place of the block as a whole."""
        last = self.kind or (self.labels[-1] if self.labels else self.keyword)
        return Span(self.span.origin, self.keyword.span.first, last.span.last)


Item: TypeAlias = (
    Use
    | Let
    | Block
    | Assign
    | Entry
    | Every
    | Keep
    | Flag
    | Require
    | Otherwise
    | Filter
    | Alike
    | Allow
    | Open
)
