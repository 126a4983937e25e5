"""Values as written → values as meant, one function for each kind of attribute.

Each takes a node of the syntax tree and returns a plain value, or raises `Invalid` with the place,
the reason and a way out.
"""

from collections.abc import Callable, Collection
from fractions import Fraction
from typing import NamedTuple

from . import syntax as s
from .diagnostics import did_you_mean
from .quantity import UNITS, Quantity, plain
from .schedule import SHAPES
from .source import Span

MOST_DEVICES = 10**6
"""A cluster has at most so many nodes, and a node so many devices."""


class Invalid(Exception):
    """A value that its attribute does not admit."""

    def __init__(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        label: str = "",
        help: str = "",
        name: str = "",
        units: Collection[str] = (),
    ) -> None:
        """`name` is what stands where a value is wanted: a `let` of a similar name may be meant;
        `units` are those of which one is missing."""
        super().__init__(message)
        self.code, self.message, self.span = code, message, span
        self.label, self.help, self.name, self.units = label, help, name, units


def _kind(value: s.Value) -> str:
    return {
        s.Number: "a number",
        s.Text: "a text",
        s.Path: "a name",
        s.Indexed: "a name with an index",
        s.Either: "a choice of two",
        s.Range: "a range",
        s.List: "a list",
        s.Braces: "a group in braces",
        s.Tagged: "a named group",
        s.Scaled: "a scaled mixture",
        s.Counted: "a count of something",
        s.Periodic: "something periodic",
        s.Schedule: "a schedule",
    }[type(value)]


def wrong_value(value: s.Value, wanted: str, example: str) -> Invalid:
    """What is wrong with a value of another kind than is wanted."""
    name = value.name if isinstance(value, s.Path) else ""
    if name.lower() in ("none", "null", "nil", "undefined", "nan", "inf"):
        return Invalid(
            "E201",
            f"this must be {wanted}: there is no `{name}` in a spec",
            value.span,
            help="leave the attribute out for its default",
        )
    return Invalid(
        "E201",
        f"this must be {wanted}, not {_kind(value)}",
        value.span,
        help=f"write {example}",
        name=name,
    )


def text(value: s.Value) -> str:
    if not isinstance(value, s.Text):
        said = value.name if isinstance(value, s.Path) else "…"
        raise wrong_value(value, "a text", f'it in double quotes: "{said}"')
    return value.value


def _items(value: s.List) -> "tuple[s.Operand | s.Range, ...]":
    if not value.items:
        raise Invalid("E208", "this list is empty", value.span, help="leave it out or fill it")
    return value.items


def texts(value: s.Value) -> list[str]:
    """One text or a list of texts."""
    if isinstance(value, s.List):
        return [text(item) for item in _items(value)]
    return [text(value)]


def name(value: s.Value) -> str:
    if isinstance(value, s.Text) and value.value.isidentifier():
        raise wrong_value(value, "a name", f"it without quotes: {value.value}")
    if not isinstance(value, s.Path):
        raise wrong_value(value, "a name", "the name of a declaration, without quotes")
    return value.name


def names(value: s.Value) -> list[str]:
    if not isinstance(value, s.List):
        said = value.name if isinstance(value, s.Path) else "first, second"
        raise wrong_value(value, "a list of names", f"[{said}]")
    return [name(item) for item in _items(value)]


def reference(value: s.Value) -> str:
    """What a stage refers to, as text: `anneal`, `prompts[round]`, `previous.chat or anneal`."""
    if not isinstance(value, s.Path | s.Indexed | s.Either):
        raise wrong_value(value, "a name", "the name of a declaration, without quotes")
    return value.name


def references(value: s.Value) -> list[str]:
    """One reference or a list of them."""
    if isinstance(value, s.List):
        return [reference(item) for item in _items(value)]
    return [reference(value)]


def kept(value: s.Value) -> int:
    """How many draws of a prompt are kept: `best` is one, `all` are 0."""
    if isinstance(value, s.Number):
        return count("")(value)
    return {"best": 1, "all": 0}[one_of("best", "all")(value)]


def suites(value: s.Value) -> dict[str, list[str]]:
    """Names of tasks by capability."""
    if not isinstance(value, s.Braces):
        raise wrong_value(value, "a group of tasks", '{ math ["gsm8k"], code ["humaneval"] }')
    found: dict[str, list[str]] = {}
    for item in value.items:
        if not isinstance(item, s.Entry) or not isinstance(item.value, s.List | s.Text):
            raise Invalid(
                "E212",
                "this is not a capability and its tasks",
                item.span,
                help='write `math ["gsm8k"]`',
            )
        if item.word.name in found:
            raise Invalid("E213", f"`{item.word.name}` is named twice", item.word.span)
        found[item.word.name] = texts(item.value)
    if not found:
        raise Invalid("E208", "there are no tasks here", value.span)
    return found


class OneOf(NamedTuple):
    """Reads a name that is one of some; `of` is what `foreign.value` calls the attribute."""

    choices: tuple[str, ...]
    of: str = ""

    def __call__(self, value: s.Value) -> str:
        chosen = name(value)
        if chosen not in self.choices:
            raise Invalid(
                "E202",
                f"`{chosen}` is not one of {', '.join(self.choices)}",
                value.span,
                help=did_you_mean(chosen, self.choices, of=self.of),
            )
        return chosen


def one_of(*choices: str, of: str = "") -> OneOf:
    return OneOf(choices, of)


def quantity(number: s.Number, units: Collection[str], default: str | None = None) -> Quantity:
    """A quantity in one of `units`; `default` is what a missing unit means, None forbids it."""
    allowed = " or ".join(f"`{u}`" if u else "a plain number" for u in units)
    unit = "%" if number.percent else "x" if number.factor else None
    if number.unit:
        if unit:
            raise Invalid(
                "E203",
                f"`{number.text}` has both a `{unit}` and a unit",
                number.span,
                help="leave one of them out",
            )
        unit = UNITS.get(number.unit.name)
        if unit is None:
            raise _no_unit(number, number.unit)
    if unit is None:
        unit = default
    if unit is None:
        first = next(u for u in units if u)
        raise Invalid(
            "E205",
            f"`{number.text}` needs a unit",
            number.span,
            label=f"{allowed}?",
            help=f"write `{number.text}{'' if first in '%x' else ' '}{first}`",
            units=units,
        )
    if unit not in units:
        if set(units) == {""}:
            raise Invalid(
                "E206",
                f"`{number.text}` is in {unit}, but this is a plain number",
                number.span,
                help="leave the unit out",
            )
        raise Invalid(
            "E206",
            f"`{number.text}` is in {unit or 'no unit'}, but this is measured in {allowed}",
            number.span,
            help=f"write it in {allowed}",
        )
    return Quantity(number.value, unit, number.text.partition(" ")[0].rstrip("%x"))


def _no_unit(number: s.Number, unit: s.Word) -> Invalid:
    """What is wrong with a word that stands where a unit may."""
    bare = number.text.removesuffix(unit.name).rstrip()
    if unit.name in SHAPES:
        return Invalid(
            "E109",
            f"`{unit.name}` is the shape of a ramp, and there is no ramp here",
            unit.span,
            help=f"write where the ramp goes: `{bare} -> 0 {unit.name}`",
        )
    meant = did_you_mean(unit.name, UNITS, of="unit")
    if unit.name in ("k", "K", "M", "B", "T", "Ki", "Mi", "Gi", "x"):
        meant = f"a suffix stands directly behind its number: `{bare}{unit.name}`"
    elif unit.name in ("percent", "pct"):
        meant = f"write `{bare}%`"
    return Invalid("E204", f"`{unit.name}` is not a unit", unit.span, help=meant)


def number(value: s.Value, units: Collection[str], default: str | None = None) -> Quantity:
    """A quantity that stands in a statement, where it may be the name of a `let`."""
    unit = next((u for u in units if u), "")
    return quantity(
        plain_number(value, f"a number: 2{'' if unit == '%' else ' '}{unit}".rstrip()),
        units,
        default,
    )


def plain_number(value: s.Value, example: str) -> s.Number:
    """The value as a number.

    Raises: Invalid: it is none; `example` is what to write.
    """
    if not isinstance(value, s.Number):
        raise wrong_value(value, "a number", example)
    return value


def whole(number: Quantity, span: Span, *, least: int = 1, most: int | None = None) -> int:
    """The quantity as an integer.

    Raises: Invalid: with both neighbours where it is not whole, or where it is out of bounds.
    """
    value = number.value
    if value.denominator != 1:
        low = value.numerator // value.denominator
        raise Invalid(
            "E207",
            f"{plain(value)} {number.unit} is not a whole number".replace("  ", " "),
            span,
            help=f"the neighbours are {plain(Fraction(low))} and {plain(Fraction(low + 1))}",
        )
    if value < least:
        raise Invalid("E208", f"this must be at least {least}", span)
    if most is not None and value > most:
        raise Invalid("E208", f"this must be at most {plain(Fraction(most))}", span)
    return int(value)


def count(*units: str, least: int = 1, most: int | None = None) -> Callable[[s.Value], int]:
    """A whole number, in the given unit or without one."""

    def convert(value: s.Value) -> int:
        unit = units[0] if units else ""
        number = plain_number(value, "a whole number")
        return whole(quantity(number, [unit], unit), value.span, least=least, most=most)

    return convert


def real(
    least: float | None = None,
    below: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Callable[[s.Value], float]:
    """A plain number within bounds."""

    def convert(value: s.Value) -> float:
        number = plain_number(value, "a plain number")
        result = float(quantity(number, [""], "").value)
        if least is not None and result < least:
            raise Invalid("E208", f"this must be at least {least:g}", value.span)
        if above is not None and result <= above:
            raise Invalid("E208", f"this must be above {above:g}", value.span)
        if below is not None and result >= below:
            raise Invalid("E208", f"this must be below {below:g}", value.span)
        if most is not None and result > most:
            raise Invalid("E208", f"this must be at most {most:g}", value.span)
        return result

    return convert


def reals(value: s.Value, below: float | None = None) -> tuple[float, ...]:
    if not isinstance(value, s.List):
        raise wrong_value(value, "a list of numbers", "[0.9, 0.95]")
    return tuple(real(below=below)(item) for item in _items(value))


def betas(value: s.Value) -> tuple[float, ...]:
    """The two decay rates of Adam's moments."""
    rates = reals(value, below=1)
    if len(rates) != 2:
        raise Invalid(
            "E208", "there are two betas, one for each moment", value.span, help="write [0.9, 0.95]"
        )
    return rates


def counts(value: s.Value) -> list[int]:
    if not isinstance(value, s.List):
        raise wrong_value(value, "a list of whole numbers", "[128, 256]")
    return [count("tokens")(item) for item in _items(value)]


def share(value: s.Value) -> Fraction:
    """A percentage from 0 to 100 (100 excluded)."""
    result = quantity(plain_number(value, "a percentage: 1%"), ["%"]).value
    if result >= 1:
        raise Invalid("E208", "this must be below 100%", value.span)
    return result


def length(*units: str) -> Callable[[s.Value], Quantity]:
    """A quantity above zero with one of the units."""

    def convert(value: s.Value) -> Quantity:
        number = plain_number(value, f"a number with its unit: 100 {units[0]}")
        result = quantity(number, units)
        if result.value <= 0:
            raise Invalid("E208", "this must be more than nothing", value.span)
        return result

    return convert


def epochs(value: s.Value) -> Quantity:
    """Passes over the data, which need not be whole."""
    result = quantity(plain_number(value, "a number of epochs: 2 epochs"), ["epochs"], "epochs")
    if result.value <= 0:
        raise Invalid("E208", "this must be more than nothing", value.span)
    return result


def flag(value: s.Value) -> bool:
    return one_of("true", "false")(value) == "true"


def devices(value: s.Value) -> tuple[int, str]:
    """`8 of "H100 80GB"` → (8, "H100 80GB")."""
    if not isinstance(value, s.Counted):
        raise wrong_value(value, "a number of GPUs of a kind", '8 of "H100 80GB"')
    number = quantity(plain_number(value.number, "a number: 8"), [""], "")
    return whole(number, value.number.span, most=MOST_DEVICES), text(value.what)
