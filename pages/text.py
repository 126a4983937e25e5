"""The text of a spec as HTML: an anchor per line, with coloured words."""

import re
from functools import lru_cache

from markupsafe import Markup, escape

from ..spec.text.reader import reader

_WORDS = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<number>\b[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?[A-Za-z%]*)"
    r"|(?P<attribute>\b[A-Za-z_]\w*(?=\s*=))|(?P<word>\b[A-Za-z_]\w*\b)"
)


@lru_cache(maxsize=1)
def _keywords() -> frozenset[str]:
    """The words that have a meaning in the grammar."""
    return frozenset(reader().words)


def highlighted(text: str) -> list[Markup]:
    """The lines of a spec, escaped."""
    lines = []
    for line in text.split("\n"):
        parts, at = [Markup("")], 0
        for match in _WORDS.finditer(line):
            kind = match.lastgroup
            if kind == "word" and match[0] not in _keywords():
                continue
            parts += [
                escape(line[at : match.start()]),
                Markup('<span class="{}">{}</span>').format(kind, match[0]),
            ]
            at = match.end()
        lines.append(Markup("").join([*parts, escape(line[at:])]))
    return lines[:-1] if lines and not lines[-1] else lines
