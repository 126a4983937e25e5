"""Exact quantities: a fraction and a unit. Units of different dimension never mix silently."""

import re
from fractions import Fraction

from .record import Record, field

UNITS = {
    "token": "tokens",
    "tokens": "tokens",
    "step": "steps",
    "steps": "steps",
    "seq": "seqs",
    "seqs": "seqs",
    "doc": "docs",
    "docs": "docs",
    "epoch": "epochs",
    "epochs": "epochs",
    "dialog": "dialogs",
    "dialogs": "dialogs",
    "pair": "pairs",
    "pairs": "pairs",
    "rating": "ratings",
    "ratings": "ratings",
    "solution": "solutions",
    "solutions": "solutions",
    "prompt": "prompts",
    "prompts": "prompts",
    "word": "words",
    "words": "words",
    "GiB": "GiB",
    "h": "h",
    "min": "min",
    "s": "s",
    "time": "times",
    "times": "times",
}
"""Every spelling of a unit → the unit."""


_DECIMAL = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3))
_BINARY = (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_SINGULAR = {"seqs": "seq", "docs": "doc", "times": "time", "s": "s"}
_DIGITS = re.compile(r"[0-9_]+")


class Quantity(Record, kw_only=False):
    """A count or a share; the unit is a value of `UNITS`, `%` (value 1/2 for 50 %), `x` or "".

    Attributes:
        text: the number as the spec writes it, `16Mi`; empty if it is not from a spec.
    """

    value: Fraction
    unit: str
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.unit == "%":
            return f"{plain(self.value * 100)}%"
        number = echoed(self.text) if self.text else plain(self.value)
        return f"{number} {singular(self.unit) if self.value == 1 else self.unit}".rstrip()


def plain(value: Fraction | int | float) -> str:
    """A number for people: exact if it is whole, thousands grouped, else ten digits."""
    number = Fraction(value)
    return f"{int(number):,}" if number.denominator == 1 else f"{float(number):.10g}"


def amount(value: float) -> str:
    """A claimed or computed figure with six digits: 3B, 405.853B, 3.79879e+25; below a billion,
    all digits before the point: 29,987,181.
    """
    rounded = float(f"{value:.6g}")
    for suffix, size in _DECIMAL[:2]:
        if size <= abs(rounded) < 1000 * size:
            return f"{rounded / size:.6g}{suffix}"
    if value == int(value) and abs(value) < 1e9:
        return plain(int(value))
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e9 else f"{value:.6g}"


def echoed(text: str) -> str:
    """A number as a spec writes it; without a suffix, thousands grouped: `500k`, 53,248."""
    return f"{int(text):,}" if _DIGITS.fullmatch(text) else text


def literal(value: Fraction | int) -> str:
    """A number as a spec can write it, exact and short: `500k`, `4Mi`, `1_000_001`."""
    number = Fraction(value)
    if number.denominator != 1:
        return f"{float(number):.10g}"
    written = [f"{int(number):_}" if number >= 10_000 else str(int(number))]
    for suffix, size in (*_DECIMAL, *_BINARY):
        text = f"{float(number / size):.5g}"
        if number >= size and Fraction(text) * size == number:
            written.append(text + suffix)
    return min(written, key=len) if number >= 1000 else written[0]


def short(value: Fraction | int | float) -> str:
    """A count for people: exact up to 100,000, then with a suffix and four significant digits:
    53,248, 15.6T, 800B; exact multiples of powers of 1024 as such: 128Ki, 4Mi.
    """
    number = Fraction(value)
    if number.denominator == 1 and abs(number) < 100_000:
        return f"{int(number):,}"
    if number.denominator == 1:
        for suffix, size in _BINARY:
            if number % size == 0 and number / size < 1024:
                return f"{int(number / size)}{suffix}"
    for suffix, size in _DECIMAL:
        if abs(number) >= size:
            return f"{float(number / size):.4g}{suffix}"
    return f"{float(number):.4g}"


def measured(number: Fraction | float, digits: int = 3) -> str:
    """A computed figure with `digits` significant digits, and all those before the point: 0.0211,
    1,707, 4,601,723; from 10¹⁵ on and below 10⁻⁴ with an exponent, 3.99e+25.
    """
    value = float(number)
    whole = 10 ** (digits - 1) <= abs(value) < 1e15
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def singular(noun: str) -> str:
    """The singular of a noun: `step` for `steps`, `entry` for `entries`, `batch` for `batches`."""
    if noun in _SINGULAR or not noun.endswith("s"):
        return _SINGULAR.get(noun, noun)
    if noun.endswith(("sses", "ches", "shes", "xes")):
        return noun.removesuffix("es")
    return f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")


def counted(number: Fraction | int, nouns: str) -> str:
    """How many of something, exact: `1 step`, `53,248 tokens`, `1 GPU of a node`.

    Args:
        nouns: their name in the plural; the words after it do not change.
    """
    noun, _, more = nouns.partition(" ")
    return f"{plain(number)} {singular(noun) if number == 1 else noun} {more}".rstrip()
