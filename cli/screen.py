"""Text on standard output: how wide it may be, its colours, and paragraphs."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from typing import TextIO

from .common import colors

_ESCAPES = re.compile("\033\\[[0-9;]*m")
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_QUOTED = re.compile("(\\s*)((?:\033\\[[0-9;]*m)*`[^`\n]*`\\S*|\\S+)")
"""What stays on one line where a line holds it: a word, or code with what is joined to it."""


def width(stream: TextIO | None = None) -> int | None:
    """Columns of a stream: those of its terminal, in a pipe what COLUMNS says; None where lines
    may have any length, as in a pipe without COLUMNS.
    """
    where: TextIO = stream or sys.stdout
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    if not where.isatty():
        return None
    return shutil.get_terminal_size().columns


def cells(text: str) -> int:
    """How many columns a text takes on a terminal, its colours aside."""
    text = _ESCAPES.sub("", text)
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def clean(text: str) -> str:
    """The text with a sign for every character that a terminal would act upon."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


class Ink:
    """Paints text for a stream, word by word, so that painted text can be wrapped."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.on = colors(stream or sys.stdout)

    def __call__(self, text: str, style: str) -> str:
        if not self.on or not style:
            return text
        return re.sub(r"\S+", lambda word: f"\033[{_CODES[style]}m{word[0]}\033[0m", text)


def wrapped(text: str, columns: int | None, *, first: str = "", rest: str = "") -> Iterator[str]:
    """The lines of a paragraph, broken between words; a word too long for a line is broken behind
    its slashes and dots.

    Args:
        columns: so long a line may be; None: any length.
        first, rest: what the first line and the others begin with.
    """
    if columns is None:
        yield first + text
        return
    line, empty = first, True
    for space, word in _words(text, columns - max(cells(first), cells(rest))):
        if not empty and cells(line + space + word) > columns:
            yield line
            line, empty = rest, True
        line, empty = (line if empty else line + space) + word, False
    yield line


def _words(text: str, columns: int) -> Iterator[tuple[str, str]]:
    """Words, each with the space before it."""
    for space, each in _QUOTED.findall(text):
        fits = cells(each) <= columns
        for n, word in enumerate([each] if fits else each.split()):
            for m, part in enumerate(pieces(word, columns) if cells(word) > columns else [word]):
                yield "" if m else " " if n else space, part


def pieces(word: str, columns: int) -> list[str]:
    """A word too long for so many columns: in pieces that end at a slash, or a dot of a name,
    where there are such; the last resort is to break anywhere.
    """
    found, line = [], ""
    for part in breakable(_ESCAPES.sub("", word)):
        while cells(part) > max(columns, 1):
            if line:
                found.append(line)
                line = ""
            cut = _fitting(part, max(columns, 1))
            found.append(part[:cut])
            part = part[cut:]
        if cells(line + part) > columns:
            found.append(line)
            line = ""
        line += part
    return [*found, line] if line else found


@cache
def breakable(word: str) -> tuple[str, ...]:
    """The parts of a word that a line may end behind: folders of a path, or names with dots."""
    if "/" in word:
        return tuple(filter(None, re.split(r"(?<=/)(?=[^/])", word)))
    if ":" in word:  # a file with line and column
        return (word,)
    return tuple(filter(None, re.split(r"(?<=[A-Za-z0-9_\]]\.)(?=[A-Za-z])", word)))


def _fitting(text: str, columns: int) -> int:
    """How many characters fit into so many columns, at least one."""
    count = len(text)
    while count > 1 and cells(text[:count]) > columns:
        count -= 1
    return count


def say(text: str, *, first: str = "", rest: str = "") -> None:
    """Prints a paragraph of clean text, no wider than the terminal."""
    print("\n".join(wrapped(text, width(), first=first, rest=rest)))
