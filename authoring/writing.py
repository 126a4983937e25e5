"""Pieces of specs as text: names, numbers, blocks."""

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from ..spec.findings.diagnostics import Report
from ..spec.quantity import literal
from ..spec.source import Source
from ..spec.text.format import format_text
from ..spec.text.keywords import RESERVED

Line: TypeAlias = "tuple[str, str] | str | None"
"""An attribute with its value, any other line, or None for no line."""

WIDTH = 100


def name(wish: str, taken: Iterable[str] = (), otherwise: str = "unnamed") -> str:
    """A valid name that resembles the requested one and is not taken."""
    plain = re.sub("[^a-z0-9]+", "_", wish.lower()).strip("_")[:40].strip("_")
    if not plain:
        plain = otherwise
    if not plain[0].isalpha() or plain in RESERVED:
        plain = f"{otherwise}_{plain}"
    found, number = plain, 1
    others = set(taken)
    while found in others:
        number += 1
        found = f"{plain}_{number}"
    return found


def laid_out(text: str) -> str:
    """A spec in its canonical layout; unchanged if it cannot be parsed, which `check` reports."""
    return format_text(Source("spec", text), Report()) or text


def quoted(text: str) -> str:
    """A text in quotes, on one line."""
    return json.dumps(text, ensure_ascii=False)


def count(number: int) -> str:
    """A whole number, with a suffix if that is exact."""
    return literal(number)


def plain(number: int) -> str:
    """A whole number without a suffix: steps, batches."""
    return f"{number:_}" if number >= 10_000 else str(number)


def real(number: Fraction) -> str:
    """The shortest number that reads back as the same float."""
    if number.denominator == 1 and number < 10**6:
        return plain(int(number))
    exact = Decimal(repr(float(number))).normalize()
    if Fraction(1, 100) <= number < 10**6:
        return f"{exact:f}"
    first, *others = (str(digit) for digit in exact.as_tuple().digits)
    return f"{first}{'.' if others else ''}{''.join(others)}e{exact.adjusted()}"


def percent(share: Fraction) -> str:
    """A share as a percentage."""
    return f"{real(share * 100)}%"


def mixture(shares: dict[str, Fraction]) -> str:
    """A mixture: percentages if they add up to 100 exactly, else weights."""
    if len(shares) == 1:
        return next(iter(shares))
    total = sum(shares.values())
    parts = {source: share / total for source, share in shares.items()}
    percentages = {source: percent(part) for source, part in parts.items()}
    if sum(Fraction(text.rstrip("%")) for text in percentages.values()) == 100:
        return f"{{ {', '.join(f'{source} {text}' for source, text in percentages.items())} }}"
    return f"{{ {', '.join(f'{source} {real(share)}' for source, share in shares.items())} }}"


def schedule(segments: Sequence[str]) -> str:
    """Segments, one per line."""
    return "\n            then ".join(segments)


class Piece(NamedTuple):
    """A part of a schedule up to step `end`; a ramp's curve takes `curve` steps."""

    end: int
    text: str
    curve: int | None = None


def in_steps(number: int) -> str:
    """A number of steps with its unit."""
    return f"{plain(number)} step{'s' if number != 1 else ''}"


def timed(pieces: Iterable[Piece], steps: int) -> list[str]:
    """Segments that end at steps counted from the stage's beginning; none begins after its end."""
    segments: list[str] = []
    begin = 0
    for piece in pieces:
        end = min(piece.end, steps)
        if end <= begin:
            continue
        over = (
            f" over {plain(piece.curve)} steps"
            if piece.curve and piece.curve != end - begin
            else ""
        )
        until = f" until {plain(end)} steps" if end < steps else ""
        segments.append(f"{piece.text}{over}{until}")
        begin = end
    return segments


def block(head: str, *lines: Line) -> str:
    """A block with one attribute per line and aligned values."""
    kept = [line for line in lines if line is not None]
    width = max((len(line[0]) for line in kept if isinstance(line, tuple)), default=0)
    body = [
        f"  {line[0]:<{width}} = {line[1]}" if isinstance(line, tuple) else f"  {line}".rstrip()
        for line in kept
    ]
    if not body:
        return f"{head} {{ }}"
    one = f"{head} {{ {', '.join(' '.join(line.split()) for line in body)} }}"
    if len(body) <= 2 and len(one) <= 88 and not any("#" in line for line in body):
        return one
    return "\n".join([f"{head} {{", *body, "}"])


def comment(text: str) -> str:
    """Text as comment lines."""
    return _wrapped(text, "# ", "# ")


def item(text: str) -> str:
    """Text as an item of a list in comments."""
    return _wrapped(text, "# - ", "#   ")


def _wrapped(text: str, first: str, others: str) -> str:
    import textwrap

    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
