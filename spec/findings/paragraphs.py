"""Paragraphs for terminals, broken between words or, in long names, at slashes and dots."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_ESCAPES = re.compile("\033\\[[0-9;]*m")
_QUOTED = re.compile("(\\s*)((?:\033\\[[0-9;]*m)*`[^`\n]*`\\S*|\\S+)")
"""What stays on one line if it fits: a word, or code with what is joined to it."""


def cells(text: str) -> int:
    """How many columns a text takes on a terminal, without its colour codes."""
    text = _ESCAPES.sub("", text)
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def wrapped(text: str, columns: int | None, *, first: str = "", rest: str = "") -> Iterator[str]:
    """The lines of a paragraph, broken between words. A word too long for a line is broken after
    its slashes and dots.

    Args:
        columns: the longest line; None: no limit.
        first, rest: prefixes of the first line and of the others.
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
    """Breaks a word that is too long for a line after slashes, or after the dots of a name; if
    that does not suffice, anywhere.
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
    """The parts of a word that a line may be broken after: folders of a path, or dotted names."""
    if "/" in word:
        return tuple(filter(None, re.split(r"(?<=/)(?=[^/])", word)))
    if ":" in word:  # a file with line and column
        return (word,)
    return tuple(filter(None, re.split(r"(?<=[A-Za-z0-9_\]]\.)(?=[A-Za-z])", word)))


def _fitting(text: str, columns: int) -> int:
    """How many characters fit into a number of columns, at least one."""
    count = len(text)
    while count > 1 and cells(text[:count]) > columns:
        count -= 1
    return count
