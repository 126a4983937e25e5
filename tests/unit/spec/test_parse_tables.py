"""The tables that specs are read by are those of the grammar, and read what lark itself reads."""

import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from lark import Lark, Token, UnexpectedInput, UnexpectedToken

from etude.spec.text.parse import tokens
from etude.spec.text.reader import Unreadable

ROOT = Path(__file__).parents[3]
WRITER = runpy.run_path(str(ROOT / "docs" / "parse_tables.py"))
SPEC = (ROOT / "examples" / "llama3_405b.etude").read_text(encoding="utf-8")
PIECES = [
    "of",
    "then",
    "thenx",
    "for ",
    "linear",
    "->",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    "\n",
    " \n",
    "# x",
    '"',
    "1Ki",
    "50%",
    "=",
    ":",
    ".",
    ">=",
    "$",
    "é",
    "cite",
]


@pytest.fixture(scope="module")
def lark() -> Lark:
    return WRITER["parser"]()


def by_lark(lark: Lark, text: str) -> list[Any]:
    """The tokens with their places, or what is wrong and where."""
    try:
        lark.parse(text)
        read: list[Token] = list(lark.parse_interactive(text).iter_parse())
        return [(str(t.type), str(t), t.start_pos) for t in read]
    except UnexpectedToken as problem:
        end = problem.token.type == "$END"
        place = len(text) if end else problem.token.start_pos
        return [str(problem.token.type), str(problem.token), place, set(problem.accepts)]
    except UnexpectedInput as problem:
        place = problem.pos_in_stream or 0
        return ["", text[place], place]


def by_tables(text: str) -> list[Any]:
    try:
        return [(token.kind, str(token), token.start) for token in tokens(text)]
    except Unreadable as problem:
        found = [problem.kind, problem.word, problem.position]
        return [*found, set(problem.expected)] if problem.kind else found


def test_the_tables_are_those_of_the_grammar() -> None:
    written = (ROOT / "spec" / "text" / "tables.json").read_text(encoding="utf-8")
    assert written == WRITER["text"](), "run: make docs"


@pytest.mark.parametrize("seed", range(100))
def test_tokens_and_errors_are_those_of_lark(lark: Lark, seed: int) -> None:
    chance, text = random.Random(seed), SPEC
    for _ in range(seed % 4):
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice(PIECES) + text[place + chance.choice([0, 1]) :]
    assert by_tables(text) == by_lark(lark, text)


@pytest.mark.parametrize(
    "text",
    [
        "of = { linear 50%, cite 50% }\n",  # words that are names here
        "keep last 3\nkeep last where url\n",
        "otherwise extendx 3\n",  # no word of the grammar, though it begins with one
        "a = 1 \n\n # a comment\n  then 2 for 3\n",
        "a = 3\n}\n",
        "a = { b",
        "",
    ],
)
def test_what_a_word_is_depends_on_where_it_stands(lark: Lark, text: str) -> None:
    assert by_tables(text) == by_lark(lark, text)
