"""Cutting a text where one block has ended and a line begins the next statement."""

import re
from typing import Any

from . import syntax as s
from .lexer import BRACES
from .source import Source, Span

_CLOSES = {"}": "{", "]": "[", ")": "("}
_REST_OF_LINE = re.compile(r"[ \t\f\r]*(?:#[^\n]*)?\n")
_BLANKS = re.compile(r"(?:[ \t\f\r]*(?:#[^\n]*)?\n)*[ \t\f\r]*")
_BEGINS = re.compile(r"(?!(?:then|over|until|for|within)\b|(?:cite|assumed)[ \t]+\")[A-Za-z_]")
_RECORDS = (of for of in vars(s).values() if isinstance(of, type) and issubclass(of, tuple))
_NODES = set(_RECORDS) - {tuple}
_make = tuple.__new__


def pieces(text: str) -> list[tuple[int, int]] | None:
    """Where the text can be cut so that each piece is read as it is within the whole.

    None where braces do not match.
    """
    starts = [0]
    opened: list[str] = []
    for match in BRACES.finditer(text):
        brace = match[0]
        if brace in "{[(":
            opened.append(brace)
        elif brace in "}])":
            if not opened or opened.pop() != _CLOSES[brace]:
                return None
            rest = _REST_OF_LINE.match(text, match.end()) if not opened else None
            blanks = _BLANKS.match(text, rest.end()) if rest else None
            if brace == "}" and rest and blanks and _BEGINS.match(text, blanks.end()):
                starts.append(rest.end())
    if opened:
        return None
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def moved(node: Any, source: Source, by: int) -> Any:
    """A part of a syntax tree, `by` characters further on, in another source."""
    kind = type(node)
    if kind is Span:
        return _make(Span, (source, node[1] + by, node[2] + by))
    if kind is s.Word:  # the nodes that there are most of, without another call
        name, (_, start, end) = node
        return _make(s.Word, (name, _make(Span, (source, start + by, end + by))))
    if kind is s.Number:
        value, suffix, unit, text, (_, start, end) = node
        if unit is not None:
            unit = moved(unit, source, by)
        return _make(kind, (value, suffix, unit, text, _make(Span, (source, start + by, end + by))))
    if kind is tuple:
        return tuple([moved(part, source, by) for part in node])
    if kind in _NODES:
        return _make(kind, [moved(p, source, by) if isinstance(p, tuple) else p for p in node])
    return node
