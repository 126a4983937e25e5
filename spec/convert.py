"""Values as written → values as meant, one function for each kind of attribute.

Each takes a node of the syntax tree and returns a plain value, or raises `Invalid` with the place,
the reason and a way out.
"""

from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Any, NamedTuple

from . import syntax as s
from .diagnostics import did_you_mean
from .quantity import UNITS, Quantity, plain
from .schedule import AUTO, LAST, Auto, Bound, Last, Schedule, Segment, constant
from .source import Span

MOST_DEVICES = 10**6
"""A cluster has at most so many nodes, and a node so many devices."""


class Invalid(Exception):
    """A value that its attribute does not admit."""

    def __init__(
        self, code: str, message: str, span: Span, *, label: str = "", help: str = "",
        name: str = "",
    ) -> None:  # fmt: skip
        """`name` is what stands where a value is wanted: a `let` of a similar name may be meant."""
        super().__init__(message)
        self.code, self.message, self.span = code, message, span
        self.label, self.help, self.name = label, help, name


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


def _wrong(value: s.Value, wanted: str, example: str) -> Invalid:
    name = value.name if isinstance(value, s.Path) else ""
    return Invalid(
        "E201", f"this must be {wanted}, not {_kind(value)}", value.span,
        help=f"write {example}", name=name,
    )  # fmt: skip


def text(value: s.Value) -> str:
    if not isinstance(value, s.Text):
        raise _wrong(value, "a text", 'it in double quotes: "…"')
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
    if not isinstance(value, s.Path):
        raise _wrong(value, "a name", "the name of a declaration, without quotes")
    return value.name


def names(value: s.Value) -> list[str]:
    if not isinstance(value, s.List):
        raise _wrong(value, "a list of names", "[first, second]")
    return [name(item) for item in _items(value)]


def reference(value: s.Value) -> str:
    """What a stage refers to, as text: `anneal`, `prompts[round]`, `previous.chat or anneal`."""
    if not isinstance(value, s.Path | s.Indexed | s.Either):
        raise _wrong(value, "a name", "the name of a declaration, without quotes")
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
        raise _wrong(value, "a group of tasks", '{ math ["gsm8k"], code ["humaneval"] }')
    found: dict[str, list[str]] = {}
    for item in value.items:
        if not isinstance(item, s.Entry) or not isinstance(item.value, s.List | s.Text):
            raise Invalid("E212", "this is not a capability and its tasks", item.span,
                          help='write `math ["gsm8k"]`')  # fmt: skip
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
            raise Invalid(
                "E204",
                f"`{number.unit.name}` is not a unit",
                number.unit.span,
                help=did_you_mean(number.unit.name, UNITS, of="unit"),
            )
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
        )
    if unit not in units:
        if set(units) == {""}:
            raise Invalid(
                "E206", f"`{number.text}` is in {unit}, but this is a plain number", number.span,
                help="leave the unit out",
            )  # fmt: skip
        raise Invalid(
            "E206",
            f"`{number.text}` is in {unit or 'no unit'}, but this is measured in {allowed}",
            number.span,
            help=f"write it in {allowed}",
        )
    return Quantity(number.value, unit, number.text.partition(" ")[0].rstrip("%x"))


def number(value: s.Value, units: Collection[str], default: str | None = None) -> Quantity:
    """A quantity that stands in a statement, where it may be the name of a `let`."""
    unit = next((u for u in units if u), "")
    return quantity(_number(value, f"a number: 2{'' if unit == '%' else ' '}{unit}".rstrip()),
                    units, default)  # fmt: skip


def _number(value: s.Value, example: str) -> s.Number:
    if not isinstance(value, s.Number):
        raise _wrong(value, "a number", example)
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
        number = _number(value, "a whole number")
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
        number = _number(value, "a plain number")
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
        raise _wrong(value, "a list of numbers", "[0.9, 0.95]")
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
        raise _wrong(value, "a list of whole numbers", "[128, 256]")
    return [count("tokens")(item) for item in _items(value)]


def share(value: s.Value) -> Fraction:
    """A percentage from 0 to 100 (100 excluded)."""
    result = quantity(_number(value, "a percentage: 1%"), ["%"]).value
    if result >= 1:
        raise Invalid("E208", "this must be below 100%", value.span)
    return result


def length(*units: str) -> Callable[[s.Value], Quantity]:
    """A quantity above zero with one of the units."""

    def convert(value: s.Value) -> Quantity:
        number = _number(value, f"a number with its unit: 100 {units[0]}")
        result = quantity(number, units)
        if result.value <= 0:
            raise Invalid("E208", "this must be more than nothing", value.span)
        return result

    return convert


def epochs(value: s.Value) -> Quantity:
    """Passes over the data, which need not be whole."""
    result = quantity(_number(value, "a number of epochs: 2 epochs"), ["epochs"], "epochs")
    if result.value <= 0:
        raise Invalid("E208", "this must be more than nothing", value.span)
    return result


def flag(value: s.Value) -> bool:
    return one_of("true", "false")(value) == "true"


def devices(value: s.Value) -> tuple[int, str]:
    """`8 of "H100 80GB"` → (8, "H100 80GB")."""
    if not isinstance(value, s.Counted):
        raise _wrong(value, "a number of GPUs of a kind", '8 of "H100 80GB"')
    number = quantity(_number(value.number, "a number: 8"), [""], "")
    return whole(number, value.number.span, most=MOST_DEVICES), text(value.what)


# Operands of schedules


def rate_operand(value: s.Operand) -> Fraction | Last:
    if _is_last(value):
        return LAST
    return quantity(_number(value, "a plain number: 3e-4"), [""], "").value


def theta_operand(value: s.Operand) -> Fraction | Last:
    result = rate_operand(value)
    if result == 0:
        raise Invalid("E208", "this must be above 0", value.span)
    return result


def length_operand(value: s.Operand) -> int | Last:
    if _is_last(value):
        return LAST
    number = _number(value, "a number of tokens: 8Ki")
    return whole(quantity(number, ["tokens"], "tokens"), value.span, least=2)


def batch_operand(value: s.Operand) -> Quantity | Last:
    if _is_last(value):
        return LAST
    number = _number(value, "a number of tokens or sequences: 4Mi tokens")
    result = quantity(number, ["tokens", "seqs"])
    whole(result, value.span)
    return result


def pairs_operand(value: s.Operand) -> Quantity | Last:
    """A batch of preferences, each a sequence of its own."""
    number = _number(value, "a number of pairs: 64 pairs")
    return Quantity(Fraction(whole(quantity(number, ["pairs"], "pairs"), value.span)), "seqs")


def mixture_operand(value: s.Operand) -> dict[str, Fraction] | Last:
    """Shares that add up to 1, of sources in the order written."""
    if _is_last(value):
        return LAST
    if isinstance(value, s.Scaled):
        if value.base.name != "last":
            raise Invalid(
                "E209", f"`{value.base.name} with` has no meaning", value.base.span,
                help="only `last with { name 1.5x }` scales a mixture",
            )  # fmt: skip
        factors = _entries(value.factors, ["x"], "a factor: 1.5x")
        return Last(tuple((name, number.value) for name, number in factors.items()))
    if isinstance(value, s.Path | s.Indexed):
        return {value.name: Fraction(1)}
    if not isinstance(value, s.Braces):
        raise _wrong(value, "a mixture", "{ web 90%, math 10% }")
    weights = _entries(value, ["%", ""], "a share: 50%")
    if not weights:
        raise Invalid("E210", "this mixture is empty", value.span, help="name at least one source")
    units = {number.unit for number in weights.values()}
    if len(units) > 1:
        raise Invalid(
            "E211", "this mixture has both percentages and plain weights", value.span,
            help="write all shares one way",
        )  # fmt: skip
    total = sum((number.value for number in weights.values()), Fraction(0))
    if units == {"%"} and total != 1:
        _wrong_sum(value, weights, total)
    if total <= 0:
        raise Invalid("E210", "the weights of this mixture add up to nothing", value.span)
    return {name: number.value / total for name, number in weights.items()}


def _wrong_sum(value: s.Braces, weights: dict[str, Quantity], total: Fraction) -> None:
    parts = " + ".join(plain(number.value * 100) for number in weights.values())
    off = plain(abs(1 - total) * 100)
    raise Invalid(
        "E214",
        f"the percentages of this mixture add up to {plain(total * 100)}%, not 100%",
        value.span,
        label=f"{parts} = {plain(total * 100)}",
        help=f"{'raise' if total < 1 else 'lower'} one of them by {off}%, or write plain weights: "
        f"{{ {next(iter(weights))} {plain(next(iter(weights.values())).value * 100)}, … }}",
    )


def _entries(value: s.Braces, units: list[str], example: str) -> dict[str, Quantity]:
    result: dict[str, Quantity] = {}
    for item in value.items:
        if isinstance(item, s.Entry) and isinstance(item.value, s.Path):
            raise _wrong(item.value, example.split(":")[0], example.split(": ")[1])
        if not isinstance(item, s.Entry) or not isinstance(item.value, s.Number):
            raise Invalid("E212", "this is not a name and " + example, item.span)
        if item.word.name in result:
            raise Invalid("E213", f"`{item.word.name}` is named twice", item.word.span)
        default = "" if "" in units else None
        result[item.word.name] = quantity(item.value, units, default)
    return result


DEGREES = ("replicate", "shard", "tensor", "context", "pipeline", "interleave", "expert",
           "micro_batch")  # fmt: skip


def placement_operand(value: s.Operand) -> dict[str, int] | Last | Auto:
    """Degrees of parallelism by name."""
    if _is_last(value):
        return LAST
    if isinstance(value, s.Path) and value.name == "auto":
        return AUTO
    if not isinstance(value, s.Braces):
        raise _wrong(value, "a placement", "{ tensor 8, pipeline 16 }")
    result = {}
    for degree, number in _entries(value, [""], "a degree: tensor 8").items():
        place = next(i for i in value.items if isinstance(i, s.Entry) and i.word.name == degree)
        if degree not in DEGREES:
            raise Invalid(
                "E215", f"`{degree}` is not a kind of parallelism", place.word.span,
                help=did_you_mean(degree, DEGREES, of="degree"),
            )  # fmt: skip
        result[degree] = whole(number, place.value.span)
    return result


def _is_last(value: s.Operand) -> bool:
    return isinstance(value, s.Path) and value.name == "last"


TIME_UNITS = ("tokens", "steps", "%")


def schedule(operand: Callable[[Any], Any]) -> Callable[[s.Value], Schedule]:
    """A schedule of what `operand` reads."""

    def convert(value: s.Value) -> Schedule:
        if not isinstance(value, s.Schedule):
            if isinstance(value, s.Periodic | s.Counted):
                raise _wrong(value, "a value or a schedule", "a value, or `a -> b for …`")
            return constant(operand(value), value.span)
        segments = []
        for place, segment in enumerate(value.segments):
            last = place == len(value.segments) - 1
            if segment.bound is None and not last:
                raise Invalid(
                    "E216", "this segment never ends, so the next one never begins", segment.span,
                    help="give it a bound: `for …` or `until …`",
                )  # fmt: skip
            if isinstance(segment, s.Ramp):
                segments.append(
                    Segment(
                        segment.shape,  # type: ignore[arg-type]
                        None if segment.start is None else operand(segment.start),
                        operand(segment.end),
                        length(*TIME_UNITS)(segment.over) if segment.over else None,
                        _bound(segment.bound),
                        segment.span,
                    )
                )
            else:
                segments.append(
                    Segment(
                        "hold", None, operand(segment.value), None, _bound(segment.bound),
                        segment.span,
                    )
                )  # fmt: skip
        return Schedule(tuple(segments), value.span)

    return convert


def _bound(bound: s.Bound | None) -> Bound | None:
    if bound is None:
        return None
    return Bound(bound.relative, length(*TIME_UNITS)(bound.quantity), bound.span)
