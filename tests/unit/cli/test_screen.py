"""Tables and paragraphs at the width of a terminal."""

import re

import pytest

from etude.cli.tables import Column, Row, drawn
from etude.spec.findings.diagnostics import Diagnostic
from etude.spec.findings.paragraphs import pieces, wrapped
from etude.spec.findings.render import render
from etude.spec.source import Source, Span

COLUMNS = [
    Column("recipe", head=True),
    Column("claim"),
    Column("claimed", right=True),
    Column("computed", right=True),
    Column("source", below=True),
]
ROWS = [
    Row(("small", "parameters", "3B", "3.0751B", "huggingface.co/HuggingFaceTB/SmolLM3-3B: 3.08B")),
    Row(("small", "long_context.tokens", "30,840,000", "29,987,181", "Table 4 of the report")),
    Row(("large", "anneal_100b_a.lr at 5,000 steps", "0.0005555", "0.000555483", "")),
]


@pytest.mark.parametrize("room", range(30, 140))
def test_no_line_is_wider_and_no_number_broken(room: int) -> None:
    lines = list(drawn(COLUMNS, [ROWS[:2], ROWS[2:]], room))
    assert max(map(len, lines)) <= room
    found = " ".join(lines).split()
    for row in ROWS:
        assert row.texts[2] in found
        assert row.texts[3] in found
        for word in " ".join(row.texts[:2]).split():
            assert word in found or "." in word


def test_a_head_stands_above_its_rows_once() -> None:
    lines = list(drawn(COLUMNS, [ROWS[:2]], 120))
    assert [line.strip() for line in lines].count("small") == 1
    assert "recipe" not in lines[0]


def test_what_does_not_fit_beside_stands_below() -> None:
    wide, narrow = (list(drawn(COLUMNS, [ROWS[:2]], room)) for room in (120, 60))
    assert any("29,987,181" in line and "Table 4" in line for line in wide)
    assert "     source: Table 4 of the report" in narrow


def test_a_table_that_is_too_wide_comes_in_parts_each_with_the_first_column() -> None:
    columns = [Column("stage"), *(Column(f"figure_{n}", right=True) for n in range(9))]
    lines = list(drawn(columns, [[Row(("first", *["0.1235"] * 9))]], 50))
    assert max(map(len, lines)) <= 50
    assert " ".join(lines).split().count("first") > 1
    assert " ".join(lines).split().count("0.1235") == 9


def test_the_last_resort_breaks_words_and_loses_none() -> None:
    name = "a_name_of_one_word_that_no_terminal_of_thirty_columns_holds"
    lines = list(drawn([Column("name"), Column("is")], [[Row((name, "x"))]], 30))
    assert max(map(len, lines)) <= 30
    assert "".join(re.findall(r"[a-z_]{3,}", "".join(lines[2:]))) == name


def test_in_a_pipe_a_line_has_any_length() -> None:
    lines = list(drawn(COLUMNS, [ROWS], None))
    assert len(set(map(len, lines))) == 1
    assert lines[0].startswith("+--")
    assert lines[3].split("|")[1].strip() == "small"


def test_wide_characters_take_two_columns() -> None:
    lines = list(drawn([Column("name"), Column("is")], [[Row(("数据集", "x"))]], 40))
    assert lines[2] == " 数据集   x"
    assert lines[0] == " name     is"


def test_signs_that_move_a_cursor_are_shown_as_such() -> None:
    lines = list(drawn([Column("name")], [[Row(("a\033[2Jb",))]], 40))
    assert lines[2] == " a�[2Jb"


def test_paragraphs_are_indented_and_code_stays_whole() -> None:
    text = "write `AutoModel.from_pretrained(a, b)` and run it again"
    assert list(wrapped(text, 36, rest="  ")) == [
        "write",
        "  `AutoModel.from_pretrained(a, b)`",
        "  and run it again",
    ]
    assert list(wrapped(text, None)) == [text]


def test_colours_take_no_room() -> None:
    assert list(wrapped("\033[1mone\033[0m \033[1mtwo\033[0m", 7)) == [
        "\033[1mone\033[0m \033[1mtwo\033[0m"
    ]


def test_long_words_are_broken_behind_slashes_and_dots() -> None:
    assert pieces("corpus/general/**/*.jsonl.zst", 20) == ["corpus/general/**/", "*.jsonl.zst"]
    assert pieces("reference.align.1.dpo.pairs", 16) == ["reference.", "align.1.dpo.", "pairs"]
    assert pieces("0.000555483", 6) == ["0.0005", "55483"], "numbers are broken where all else is"


def finding(columns: int | None) -> list[str]:
    text = "stage first: train { " + "batch = 64k tokens, " * 8 + "lr = -1, data = { web 50% } }\n"
    source = Source("recipe.etude", text)
    start = text.index("-1")
    found = Diagnostic(
        "E108",
        "`-1` is negative, and no number of a spec is, whatever it is a number of",
        Span(source, start, start + 2),
        label="a number below zero, which stands for nothing that a spec says",
        help="rates cannot fall below 0: `-> 0`",
    )
    return render(found, columns=columns).splitlines()


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_findings_are_as_wide_as_the_terminal(columns: int) -> None:
    lines = finding(columns)
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for word in ["negative,", "whatever", "number", "stands", "below", "`->"]:
        assert word in words
    excerpt, pointer = lines[lines.index("  ┌─ recipe.etude:1:187") + 1 :][:2]
    assert excerpt[pointer.index("^") : pointer.rindex("^") + 1] == "-1"


def test_findings_in_a_pipe_have_lines_of_any_length() -> None:
    lines = finding(None)
    assert lines[0].endswith("whatever it is a number of")
    assert lines[3].endswith("^^ a number below zero, which stands for nothing that a spec says")
