"""The reader's answers are lark's: the same statements, and the same words not expected."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from fuzz import LONG, made
from lark import Lark, Token, Tree, UnexpectedInput, UnexpectedToken

from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text import reader as r
from etude.spec.text.parse import Builder

ROOT = Path(__file__).parents[2]
SEEDS = [*range(1, 400), *range(0, 6 * LONG, LONG)]


@pytest.fixture(scope="module")
def lark() -> Lark:
    return runpy.run_path(str(ROOT / "docs" / "parse_tables.py"))["parser"]()


def built(tree: Tree[Token] | Token, builder: Builder) -> Any:
    """What the builder makes of lark's tree."""
    if isinstance(tree, Token):
        return r.Token(tree.type, str(tree), tree.start_pos or 0)
    place = getattr(tree.meta, "start_pos", 0), getattr(tree.meta, "end_pos", 0)
    return builder.node(str(tree.data), *place, [built(part, builder) for part in tree.children])


def by_lark(lark: Lark, text: str, builder: Builder) -> Any:
    try:
        return built(lark.parse(text), builder), builder.report.diagnostics
    except UnexpectedToken as problem:
        end = problem.token.type == "$END"
        place = len(text) if end else problem.token.start_pos
        return problem.token.type, str(problem.token), place, sorted(problem.accepts)
    except UnexpectedInput as problem:
        place = problem.pos_in_stream or 0
        return "", text[place], place


def by_tables(text: str, builder: Builder) -> Any:
    try:
        return r.reader().read(text, builder.node), builder.report.diagnostics
    except r.Unreadable as problem:
        found = problem.kind, problem.word, problem.position
        return (*found, sorted(problem.expected)) if problem.kind else found


@pytest.mark.parametrize("first", range(0, len(SEEDS), 45))
def test_the_reader_reads_what_lark_reads(lark: Lark, first: int) -> None:
    for seed in SEEDS[first : first + 45]:
        text = made(seed) + "\n"
        source = Source("spec", text)
        answer = by_lark(lark, text, Builder(source, Report()))
        assert by_tables(text, Builder(source, Report())) == answer, seed
