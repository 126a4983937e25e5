"""Converts numbers and units, and reports values that are rejected.

Shared by the kinds of attributes (`kinds`) and by statements.
"""

from collections.abc import Collection
from fractions import Fraction

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..quantity import UNITS, Quantity, plain
from ..source import Span
from ..text.keywords import SHAPES


class Invalid(Exception):
    """A value that its attribute does not accept."""

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
        """`name` was written in place of a value: perhaps a `let` of a similar name is meant.
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
        s.Sized: "a name with a number",
        s.Periodic: "something periodic",
        s.Schedule: "a schedule",
    }[type(value)]


def wrong_value(value: s.Value, wanted: str, example: str) -> Invalid:
    """The error for a value of the wrong kind."""
    name = value.name if isinstance(value, s.Path) else ""
    if name.lower() in ("none", "null", "nil", "undefined", "nan", "inf"):
        return Invalid(
            "E201",
            f"this must be {wanted}: specs have no `{name}`",
            value.span,
            help="remove the attribute for its default",
        )
    return Invalid(
        "E201",
        f"this must be {wanted}, not {_kind(value)}",
        value.span,
        help=f"write {example}",
        name=name,
    )


def items(value: s.List) -> "tuple[s.Operand | s.Range, ...]":
    """The items of a list.

    Raises: Invalid: the list is empty.
    """
    if not value.items:
        raise Invalid("E208", "this list is empty", value.span, help="remove it or fill it")
    return value.items


def quantity(number: s.Number, units: Collection[str], default: str | None = None) -> Quantity:
    """A quantity in one of `units`. A missing unit means `default`; None makes it an error."""
    allowed = " or ".join(f"`{u}`" if u else "a plain number" for u in units)
    unit = "%" if number.percent else "x" if number.factor else None
    if number.unit:
        if unit:
            raise Invalid(
                "E203",
                f"`{number.text}` has both a `{unit}` and a unit",
                number.span,
                help="remove one of them",
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
                help=f"write `{float(number.value):.10g}`" if unit == "%" else "remove the unit",
            )
        raise Invalid(
            "E206",
            f"`{number.text}` is in {unit or 'no unit'}, but this is measured in {allowed}",
            number.span,
            help=f"write it in {allowed}",
        )
    return Quantity(number.value, unit, number.text.partition(" ")[0].rstrip("%x"))


def _no_unit(number: s.Number, unit: s.Word) -> Invalid:
    """The error for a word that is in place of a unit."""
    bare = number.text.removesuffix(unit.name).rstrip()
    if unit.name in SHAPES:
        return Invalid(
            "E109",
            f"`{unit.name}` is the shape of a ramp, but there is no ramp here",
            unit.span,
            help=f"write the end of the ramp: `{bare} -> 0 {unit.name}`",
        )
    meant = did_you_mean(unit.name, UNITS, of="unit")
    if unit.name in ("k", "K", "M", "B", "T", "Ki", "Mi", "Gi", "x"):
        meant = f"write the suffix without a space: `{bare}{unit.name}`"
    elif unit.name in ("percent", "pct"):
        meant = f"write `{bare}%`"
    return Invalid("E204", f"`{unit.name}` is not a unit", unit.span, help=meant)


def number(value: s.Value, units: Collection[str], default: str | None = None) -> Quantity:
    """A quantity in a statement, where it may be the name of a `let`."""
    unit = next((u for u in units if u), "")
    return quantity(
        plain_number(value, f"a number: 2{'' if unit == '%' else ' '}{unit}".rstrip()),
        units,
        default,
    )


def plain_number(value: s.Value, example: str) -> s.Number:
    """The value as a number.

    Raises: Invalid: it is not a number; `example` is what to write.
    """
    if not isinstance(value, s.Number):
        raise wrong_value(value, "a number", example)
    return value


def whole(number: Quantity, span: Span, *, least: int = 1, most: int | None = None) -> int:
    """The quantity as an integer.

    Raises: Invalid: it is not whole (names both neighbours) or out of bounds.
    """
    value = number.value
    if value.denominator != 1:
        low = value.numerator // value.denominator
        raise Invalid(
            "E207",
            f"{plain(value)} {number.unit} is not a whole number".replace("  ", " "),
            span,
            help=f"the nearest are {plain(Fraction(low))} and {plain(Fraction(low + 1))}",
        )
    if value < least:
        raise Invalid("E208", f"this must be at least {least}", span)
    if most is not None and value > most:
        raise Invalid("E208", f"this must be at most {plain(Fraction(most))}", span)
    return int(value)
