"""Text on standard output: width, colours and paragraphs."""

import os
import re
import shutil
import sys
from typing import TextIO

from ..spec.findings.paragraphs import wrapped

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def colors(stream: TextIO) -> bool:
    """Whether to colour output to a stream: a terminal, not a dumb one, and no NO_COLOR."""
    dumb = os.environ.get("TERM") == "dumb"
    return stream.isatty() and not dumb and not os.environ.get("NO_COLOR")


def width(stream: TextIO | None = None) -> int | None:
    """Columns of a stream: those of its terminal, or COLUMNS in a pipe; None if lines may have any
    length, as in a pipe without COLUMNS.
    """
    where: TextIO = stream or sys.stdout
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    if not where.isatty():
        return None
    return shutil.get_terminal_size().columns


def clean(text: str) -> str:
    """The text with every character that a terminal would act upon replaced by a sign."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


class Ink:
    """Paints text for a stream, word by word, so that painted text can be wrapped."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.on = colors(stream or sys.stdout)

    def __call__(self, text: str, style: str) -> str:
        if not self.on or not style:
            return text
        return re.sub(r"\S+", lambda word: f"\033[{_CODES[style]}m{word[0]}\033[0m", text)


def say(
    text: str,
    *,
    first: str = "",
    rest: str = "",
    to: TextIO | None = None,
    painted: bool = False,
) -> None:
    """Prints a paragraph, no wider than the terminal.

    Args:
        first, rest: prefixes of the first line and of the others.
        to: the stream; default: standard output.
        painted: `Ink` has painted some of it, and it is clean otherwise.
    """
    stream: TextIO = to or sys.stdout
    text = text if painted else clean(text)
    print("\n".join(wrapped(text, width(stream), first=first, rest=rest)), file=stream)


def lasting(seconds: float) -> str:
    """A time span in its two largest units: `2 d 3 h`, `3 h 20 min`, `4 s`."""
    left = max(round(seconds), 0)
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or size == 1:
            parts.append((count, unit))
    first, *more = parts
    if first[1] == "min" and first[0] >= 10:
        more = []
    second = f" {more[0][0]} {more[0][1]}" if more and more[0][0] else ""
    return f"{first[0]} {first[1]}{second}"
