"""Kinds of attributes: values that say what an attribute takes, and read it.

Whatever has to know what an attribute is asks its kind: the binder, the JSON form, the Python
models, the language server and the reference.
"""

from fractions import Fraction
from typing import Any, ClassVar

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..quantity import Quantity, plain
from ..record import Record
from ..text.keywords import RESERVED, VALUES, advice, why_no_name
from .convert import Invalid, items, plain_number, quantity, whole, wrong_value

MOST = 10**9
"""No dimension of a model or an evaluation is larger."""
MOST_DEVICES = 10**6
"""The most nodes of a cluster, and the most devices of a node."""


class Kind(Record):
    """What an attribute takes.

    Attributes:
        choices: the names of the language among which it chooses, or that it takes beside others.
        units: those in which it is measured, in the plural; a percentage is none.
        refers: the keywords of the blocks that it names.
        model: of a group of attributes, what it may hold.
        example: one of its values as a spec writes it.
        distinct: whether a string in JSON is this value itself, or a text: a `let` is then written
            `{"let": NAME}`.
        statement: whether blocks write it in another way than `name = value`.
    """

    distinct: ClassVar[bool] = False
    statement: ClassVar[bool] = False

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    @property
    def units(self) -> tuple[str, ...]:
        return ()

    @property
    def refers(self) -> tuple[str, ...]:
        return ()

    @property
    def model(self) -> Any:
        return None

    @property
    def example(self) -> str:
        raise NotImplementedError

    def written(self, name: str) -> str:
        """An attribute of this kind as a block says it, with the example."""
        return f"{name} = {self.example}"

    def takes(self, name: str) -> str:
        """What an attribute of this kind takes, in words."""
        return f"`{self.example}`"

    def shown(self, value: Any) -> str:
        """A default as a spec would write it."""
        return f"{value:g}" if isinstance(value, float) else str(value)

    def read(self, value: s.Value) -> Any:
        """The value that is meant.

        Raises: Invalid: the attribute does not admit what is written.
        """
        raise NotImplementedError


def listed(names: tuple[str, ...]) -> str:
    """`a`, `b` or `c`, for people."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}" if others else last


# Texts and names


class Text(Kind, kw_only=False):
    """A text, or with `many` a list of texts; one may stand for itself."""

    many: bool = False
    distinct: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return '["a", "b"]' if self.many else '"a"'

    def takes(self, name: str) -> str:
        return "text or list of texts" if self.many else "text"

    def read(self, value: s.Value) -> Any:
        if not self.many:
            return text(value)
        if isinstance(value, s.List):
            return [text(item) for item in items(value)]
        return [text(value)]


def text(value: s.Value) -> str:
    """A text in quotes.

    Raises: Invalid: it is something else.
    """
    if not isinstance(value, s.Text):
        said = value.name if isinstance(value, s.Path) else "…"
        raise wrong_value(value, "a text", f'it in double quotes: "{said}"')
    return value.value


class Name(Kind):
    """One name, or with `many` a list of names: those of blocks of the kinds `of`, and `known` ones
    that need no declaration."""

    of: tuple[str, ...]
    many: bool
    known: tuple[str, ...]

    def __init__(self, *of: str, many: bool = False, known: tuple[str, ...] = ()) -> None:
        Record.__init__(self, of=of, many=many, known=known)

    @property
    def refers(self) -> tuple[str, ...]:
        return self.of

    @property
    def choices(self) -> tuple[str, ...]:
        return self.known

    @property
    def example(self) -> str:
        return "[first, second]" if self.many else "first"

    def takes(self, name: str) -> str:
        of = self.of[0] if self.of else "name"
        return f"list of {of}s" if self.many else of

    def read(self, value: s.Value) -> Any:
        if not self.many:
            return name(value)
        if not isinstance(value, s.List):
            said = value.name if isinstance(value, s.Path) else "first, second"
            raise wrong_value(value, "a list of names", f"[{said}]")
        return [name(item) for item in items(value)]


def name(value: s.Value) -> str:
    """A name without quotes.

    Raises: Invalid: it is something else.
    """
    if isinstance(value, s.Text) and value.value.isidentifier():
        raise wrong_value(value, "a name", f"it without quotes: {value.value}")
    if not isinstance(value, s.Path):
        raise wrong_value(value, "a name", "the name of a declaration, without quotes")
    return value.name


class Ref(Kind):
    """What a stage refers to, as text: `anneal`, `prompts[round]`, `previous.chat or anneal`; with
    `many` one of these or a list of them."""

    of: tuple[str, ...]
    many: bool

    def __init__(self, *of: str, many: bool = False) -> None:
        Record.__init__(self, of=of, many=many)

    @property
    def refers(self) -> tuple[str, ...]:
        return self.of

    @property
    def example(self) -> str:
        return "[first, second]" if self.many else "first"

    def takes(self, name: str) -> str:
        several = "s" * self.many
        one = f"list of {self.of[0]}s" if self.many else self.of[0]
        return one + (f", or model{several} with weights" if "model" in self.of else "")

    def read(self, value: s.Value) -> Any:
        if not self.many:
            return _reference(value)
        if isinstance(value, s.List):
            return [_reference(item) for item in items(value)]
        return [_reference(value)]


def _reference(value: s.Value) -> str:
    if not isinstance(value, s.Path | s.Indexed | s.Either):
        raise wrong_value(value, "a name", "the name of a declaration, without quotes")
    return value.name


class OneOf(Kind):
    """A name that is one of some; `foreign` is what `foreign.value` calls the attribute."""

    names: tuple[str, ...]
    foreign: str
    distinct: ClassVar[bool] = True

    def __init__(self, *names: str, foreign: str = "") -> None:
        Record.__init__(self, names=names, foreign=foreign)

    @property
    def choices(self) -> tuple[str, ...]:
        return self.names

    @property
    def example(self) -> str:
        return self.names[0]

    def takes(self, name: str) -> str:
        return listed(self.names)

    def read(self, value: s.Value) -> Any:
        chosen = name(value)
        if chosen not in self.names:
            raise Invalid(
                "E202",
                f"`{chosen}` is not one of {', '.join(self.names)}",
                value.span,
                help=did_you_mean(chosen, self.names, of=self.foreign),
            )
        return chosen


class Flag(OneOf):
    """`true` or `false`."""

    def __init__(self) -> None:
        super().__init__("true", "false")

    def shown(self, value: Any) -> str:
        return str(value).lower()

    def read(self, value: s.Value) -> bool:
        return super().read(value) == "true"


# Numbers


class Whole(Kind, kw_only=False):
    """A whole number, in `unit` or without one."""

    unit: str = ""
    least: int = 1
    most: int | None = None

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,) if self.unit else ()

    @property
    def example(self) -> str:
        return f"{max(self.least, 8)} {self.unit}".rstrip()

    def takes(self, name: str) -> str:
        least = f", {self.least} or more" if self.least != 1 else ""
        if self.unit:
            return self.unit + least
        return f"whole number{least}" if least else "count"

    def read(self, value: s.Value) -> Any:
        number = plain_number(value, "a whole number")
        return whole(
            quantity(number, [self.unit], self.unit), value.span, least=self.least, most=self.most
        )


class Kept(Whole, kw_only=False):
    """How many draws of a prompt are kept: `best` is one, `all` are 0."""

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(_KEPT)

    def takes(self, name: str) -> str:
        return f"{', '.join(f'`{name}`' for name in _KEPT)} or a count"

    def read(self, value: s.Value) -> int:
        if isinstance(value, s.Number):
            return super().read(value)
        return _KEPT[OneOf(*_KEPT).read(value)]


_KEPT = {"best": 1, "all": 0}


class Every(Whole, kw_only=False):
    """A number of steps between two of something: `checkpoint every 500 steps`."""

    unit: str = "steps"
    statement: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return f"500 {self.unit}"

    def takes(self, name: str) -> str:
        return f"the statement `{self.written(name)}`"

    def written(self, name: str) -> str:
        return f"{name} every {self.example}"


class Wholes(Kind, kw_only=False):
    """A list of whole numbers, in `unit` or without one."""

    unit: str = ""

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,) if self.unit else ()

    @property
    def example(self) -> str:
        return "[128, 256]"

    def takes(self, name: str) -> str:
        return "list of counts" + (f", in {self.unit}" if self.unit else "")

    def read(self, value: s.Value) -> list[int]:
        if not isinstance(value, s.List):
            raise wrong_value(value, "a list of whole numbers", "[128, 256]")
        return [Whole(self.unit).read(item) for item in items(value)]


class Real(Kind, kw_only=False):
    """A plain number within bounds."""

    least: float | None = None
    below: float | None = None
    above: float | None = None
    most: float | None = None

    @property
    def example(self) -> str:
        return "0.1" if self.above is None or self.above < 0.1 else f"{self.above + 1:g}"

    def takes(self, name: str) -> str:
        if self.least is not None and self.below is not None:
            return f"number from {self.least:g} to below {self.below:g}"
        parts = ["number"] if self.above is None else [f"number above {self.above:g}"]
        parts += [] if self.least is None else [f"{self.least:g} or more"]
        parts += [] if self.most is None else [f"at most {self.most:g}"]
        return ", ".join(parts)

    def read(self, value: s.Value) -> float:
        number = plain_number(value, "a plain number")
        result = float(quantity(number, [""], "").value)
        if self.least is not None and result < self.least:
            raise Invalid("E208", f"this must be at least {self.least:g}", value.span)
        if self.above is not None and result <= self.above:
            raise Invalid("E208", f"this must be above {self.above:g}", value.span)
        if self.below is not None and result >= self.below:
            raise Invalid("E208", f"this must be below {self.below:g}", value.span)
        if self.most is not None and result > self.most:
            raise Invalid("E208", f"this must be at most {self.most:g}", value.span)
        return result


class Reals(Kind, kw_only=False):
    """A list of plain numbers."""

    below: float | None = None

    @property
    def example(self) -> str:
        return "[0.9, 0.95]"

    def takes(self, name: str) -> str:
        return "list of numbers"

    def shown(self, value: Any) -> str:
        return str(list(value))

    def read(self, value: s.Value) -> tuple[float, ...]:
        if not isinstance(value, s.List):
            raise wrong_value(value, "a list of numbers", "[0.9, 0.95]")
        return tuple(Real(below=self.below).read(item) for item in items(value))


class Betas(Reals, kw_only=False):
    """The two decay rates of Adam's moments."""

    below: float | None = 1

    def takes(self, name: str) -> str:
        return "list of two numbers below 1"

    def read(self, value: s.Value) -> tuple[float, ...]:
        rates = super().read(value)
        if len(rates) != 2:
            raise Invalid(
                "E208",
                "there are two betas, one for each moment",
                value.span,
                help="write [0.9, 0.95]",
            )
        return rates


class Share(Kind):
    """A percentage from 0 to 100 (100 excluded)."""

    @property
    def example(self) -> str:
        return "1%"

    def takes(self, name: str) -> str:
        return "percentage below 100%"

    def shown(self, value: Any) -> str:
        return f"{plain(value * 100)}%"

    def read(self, value: s.Value) -> Fraction:
        result = quantity(plain_number(value, "a percentage: 1%"), ["%"]).value
        if result >= 1:
            raise Invalid("E208", "this must be below 100%", value.span)
        return result


class Amount(Kind):
    """A quantity above zero in one of the units; where there is one, it may be left out."""

    of: tuple[str, ...]

    def __init__(self, *of: str) -> None:
        Record.__init__(self, of=of)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(unit for unit in self.of if unit != "%")

    @property
    def example(self) -> str:
        return f"{2 if len(self.of) == 1 else 100} {self.of[0]}"

    def takes(self, name: str) -> str:
        return self.of[0] if len(self.of) == 1 else listed(self.of)

    def read(self, value: s.Value) -> Quantity:
        only = self.of[0] if len(self.of) == 1 else None
        wanted = f"a number of {only}" if only else "a number with its unit"
        result = quantity(plain_number(value, f"{wanted}: {self.example}"), self.of, only)
        if result.value <= 0:
            raise Invalid("E208", "this must be more than 0", value.span)
        return result


LENGTH = Amount("tokens", "steps", "%")
"""A length of a part of a stage."""


class Devices(Kind):
    """`8 of "H100 80GB"` → (8, "H100 80GB")."""

    @property
    def example(self) -> str:
        return '8 of "H100 80GB"'

    def read(self, value: s.Value) -> tuple[int, str]:
        if not isinstance(value, s.Counted):
            raise wrong_value(value, "a number of GPUs of a kind", self.example)
        number = quantity(plain_number(value.number, "a number: 8"), [""], "")
        return whole(number, value.number.span, most=MOST_DEVICES), text(value.what)


class Suites(Kind):
    """Names of tasks by capability."""

    distinct: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return '{ math ["gsm8k"], code ["humaneval"] }'

    def read(self, value: s.Value) -> dict[str, list[str]]:
        if not isinstance(value, s.Braces):
            raise wrong_value(value, "a group of tasks", self.example)
        found: dict[str, list[str]] = {}
        for item in value.items:
            if not isinstance(item, s.Entry) or not isinstance(item.value, s.List | s.Text):
                raise Invalid(
                    "E212",
                    "this is not a capability and its tasks",
                    item.span,
                    help='write `math ["gsm8k"]`',
                )
            name = item.word.name
            if name in RESERVED and name not in VALUES:
                help = advice(name, "capability")
                raise Invalid("E306", why_no_name(name), item.word.span, help=help)
            if name in found:
                raise Invalid("E213", f"`{name}` is named twice", item.word.span)
            found[name] = Text(many=True).read(item.value)
        if not found:
            raise Invalid("E208", "there are no tasks here", value.span)
        return found
