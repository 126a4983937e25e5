"""The reader's answers are lark's: the same statements, and the same words not expected."""

from typing import Any

import pytest
from fuzz import LONG, made
from lark import UnexpectedInput, UnexpectedToken

from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text import parse

SEEDS = [*range(1, 400), *range(0, 6 * LONG, LONG)]


def described(problem: UnexpectedInput) -> tuple[Any, ...]:
    if not isinstance(problem, UnexpectedToken):
        return type(problem), problem.pos_in_stream, sorted(getattr(problem, "allowed", None) or ())
    token = problem.token
    place = None if token.type == "$END" else token.start_pos
    return token, token.type, place, sorted(problem.expected), sorted(problem.accepts or ())


@pytest.mark.parametrize("first", range(0, len(SEEDS), 45))
def test_the_reader_reads_what_lark_reads(first: int) -> None:
    for seed in SEEDS[first : first + 45]:
        text = made(seed) + "\n"
        source, answers = Source("spec", text), []
        for reads in (
            lambda builder, text=text: parse._reader().read(text, builder.node),
            lambda builder, text=text: builder.transform(parse._parser().parse(text)),
        ):
            report = Report()
            try:
                answer = reads(parse._Builder(source, report))
                answers.append((answer, [each.to_dict() for each in report.diagnostics]))
            except UnexpectedInput as problem:
                answers.append(described(problem))
        assert answers[0] == answers[1], seed
