"""One regular expression gives what lark's contextual lexer gives with one for each state."""

import random
from pathlib import Path
from typing import Any

import pytest
from lark import Lark, Token, UnexpectedInput

from etude.spec.text.lexer import OneRegexLexer

ROOT = Path(__file__).parents[3]
GRAMMAR = (ROOT / "spec" / "text" / "grammar.lark").read_text(encoding="utf-8")
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
def parsers() -> tuple[Lark, Lark]:
    options: dict[str, Any] = {"parser": "lalr", "lexer": "contextual"}
    plugins = {"ContextualLexer": OneRegexLexer}
    return Lark(GRAMMAR, **options), Lark(GRAMMAR, **options, _plugins=plugins)


def read(parser: Lark, text: str) -> list[Any]:
    """The tokens with their places, or the error with what `parse` reads from it."""
    try:
        tokens = parser.parse(text).scan_values(lambda value: isinstance(value, Token))
        return [(t.type, str(t), t.start_pos, t.end_pos, t.line, t.end_column) for t in tokens]
    except UnexpectedInput as problem:
        names = ("token", "expected", "accepts", "allowed", "pos_in_stream", "line", "column")
        return [type(problem), *(getattr(problem, name, None) for name in names)]


@pytest.mark.parametrize("seed", range(100))
def test_tokens_and_errors_are_those_of_lark(parsers: tuple[Lark, Lark], seed: int) -> None:
    chance, text = random.Random(seed), SPEC
    for _ in range(seed % 4):
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice(PIECES) + text[place + chance.choice([0, 1]) :]
    theirs, ours = (read(parser, text) for parser in parsers)
    assert ours == theirs


def test_a_keyword_is_a_name_where_the_grammar_has_no_use_for_it(
    parsers: tuple[Lark, Lark],
) -> None:
    text = "of = { linear 50%, cite 50% }\n"
    theirs, ours = (read(parser, text) for parser in parsers)
    assert ours == theirs
    assert [kind for kind, *_ in ours].count("NAME") == 3
