"""Texts with one mistake each, and what is found in them."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from specs import analysed

from etude.spec.findings.diagnostics import Diagnostic

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").rglob("*.etude"))
_TOKEN = re.compile(r'#[^\n]*|"(?:[^"\\\n]|\\.)*"|[A-Za-z_]\w*|[0-9][\w.%]*(?:e-?\d+)?|->|\S')
INSERTED = (",", "{", "}", "[", "]", "(", ")", '"', "'", "=", ":", ";", "-", "for", "then", "1")


class Mistake(NamedTuple):
    """A text with one mistake.

    Attributes:
        kind: what was done: `delete "`, `insert ]`, `delete a word`, …
        line: where, from one.
    """

    text: str
    kind: str
    line: int


def mistakes(text: str, number: int, seed: int) -> Iterator[Mistake]:
    """So many texts with one mistake each, drawn again for each seed."""
    draw = random.Random(seed)
    tokens = [match for match in _TOKEN.finditer(text) if match[0][0] != "#"]
    marks = [match for match in tokens if not match[0][0].isalnum()]
    for _ in range(number):
        token = draw.choice(marks if draw.random() < 0.5 else tokens)
        start, end = token.span()
        word = token[0]
        if draw.random() < 0.35:
            what = draw.choice(INSERTED)
            space = "" if what in "\"',;:)}]" else " "
            at = draw.choice((start, end))
            changed, kind = f"{text[:at]}{space}{what}{space}{text[at:]}", f"insert {what}"
        elif word[0] == '"' and draw.random() < 0.7:
            at = draw.choice((start, end - 1))
            start = at
            changed, kind = text[:at] + text[at + 1 :], 'delete "'
        else:
            kind = (
                "a text"
                if word[0] == '"'
                else "a word"
                if word[0].isalpha() or word[0] == "_"
                else ("a number" if word[0].isdigit() else word)
            )
            changed, kind = text[:start] + text[end:], f"delete {kind}"
        yield Mistake(changed, kind, text.count("\n", 0, start) + 1)


def errors(text: str) -> list[Diagnostic]:
    """What `etude check` finds in a text, without warnings and notes."""
    found = analysed(text, each_variant="always").report.ordered()
    return [each for each in found if each.severity == "error"]
