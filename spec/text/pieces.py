"""Splits a text where a block has ended and the next statement begins on a new line."""

import re

from .keywords import CONTINUATION
from .reader import BRACES

_CLOSES = {"}": "{", "]": "[", ")": "("}
_REST_OF_LINE = re.compile(r"[ \t\f\r]*(?:#[^\n]*)?\n")
_BLANKS = re.compile(r"(?:[ \t\f\r]*(?:#[^\n]*)?\n)*[ \t\f\r]*")
_BEGINS = re.compile(rf"(?!{CONTINUATION})[A-Za-z_]")


def pieces(text: str) -> list[tuple[int, int]] | None:
    """Where the text can be cut so that each piece parses as it would within the whole.

    None if braces do not match.
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
