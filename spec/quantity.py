"""Exact quantities: a fraction and a unit. Units of different dimension never mix silently."""

from fractions import Fraction

from .record import Record

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
    "pair": "pairs",
    "pairs": "pairs",
    "prompt": "prompts",
    "prompts": "prompts",
    "GiB": "GiB",
    "h": "h",
    "min": "min",
    "time": "times",
    "times": "times",
}
"""Every unit as it may be written → the unit."""


class Quantity(Record, kw_only=False):
    """A count or a share; the unit is a value of `UNITS`, `%` (value 1/2 for 50 %), `x` or ""."""

    value: Fraction
    unit: str

    def __str__(self) -> str:
        if self.unit == "%":
            return f"{plain(self.value * 100)}%"
        return f"{plain(self.value)} {self.unit}".rstrip()


def plain(value: Fraction) -> str:
    """A number for people: exact where short, thousands grouped."""
    if value.denominator == 1:
        return f"{int(value):,}".replace(",", " ")
    return f"{float(value):.10g}"


def short(value: Fraction | int | float) -> str:
    """A count with a suffix, four significant digits: 15.6T, 800B, 4Mi for exact powers of 1024."""
    number = Fraction(value)
    if number.denominator == 1 and number >= 1024:
        for suffix, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if number % size == 0 and number / size < 1024:
                return f"{int(number / size)}{suffix}"
    for suffix, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(number) >= size:
            return f"{float(number / size):.4g}{suffix}"
    return f"{float(number):.4g}" if number.denominator != 1 else str(int(number))
