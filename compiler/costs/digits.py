"""How many digits estimates have."""

DIGITS = 4
"""Significant digits of an estimate: more would suggest false precision."""


def digits(value: float) -> float:
    """The value rounded to the digits of an estimate."""
    return float(f"{value:.{DIGITS}g}")
