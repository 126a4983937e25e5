"""The language server's functions on texts that are being written: any answer, never an error."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsp_files import SPEC
from specs import POST_TRAINING

from etude.lsp import actions, completion, diagnostics, hover, inlay, navigation, outline
from etude.lsp.parsing import Parser
from etude.lsp.positions import Lines
from etude.lsp.project import Project
from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text.parse import parse
from etude.spec.text.pieces import pieces

FOLDER = Path(tempfile.gettempdir()).resolve()
VARIANT = "variant hot {\n  first.lr = 1e-2\n  model.tiny.dim = 128\n  peak = 2\n}\n"
TEXTS = [SPEC + VARIANT, POST_TRAINING]
TYPED = [
    *[
        "",
        " ",
        "{",
        "}",
        "[",
        '"',
        "=",
        "->",
        "then ",
        ".",
        ",",
        "\n",
        "x",
        "1",
        "4Ki ",
        "#",
        "\r\n",
    ],
    *["🎼", "previous.", "let a = a\n", 'use "x"\n', "variant v {", "allow W601"],
]
PLACED = (
    *(hover.hover, completion.completion, navigation.definition, navigation.references),
    *(navigation.highlights, navigation.renameable),
)


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, int]:
    """A spec after some edits, and where the cursor stands."""
    text = draw(st.sampled_from(TEXTS))
    cursor = 0
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 0, 1, 5, 60])))
        typed = draw(st.sampled_from(TYPED))
        text = text[:start] + typed + text[end:]
        cursor = start + len(typed)
    return text, cursor


@st.composite
def edits(draw: st.DrawFn) -> list[str]:
    """Texts that follow each other as someone types, takes back and repeats blocks."""
    texts = [draw(st.sampled_from(TEXTS))]
    for _ in range(draw(st.integers(1, 6))):
        text = texts[-1]
        cuts = pieces(text) or [(0, len(text))]
        start, end = draw(st.sampled_from(cuts))
        match draw(st.sampled_from(["type", "take out", "repeat", "back"])):
            case "type":
                at = draw(st.integers(0, len(text)))
                gone = draw(st.sampled_from([0, 0, 1, 5]))
                text = text[:at] + draw(st.sampled_from(TYPED)) + text[at + gone :]
            case "take out":
                text = text[:start] + text[end:]
            case "repeat":
                text = text[:start] + text[start:end] + text[start:]
            case "back":
                text = draw(st.sampled_from(texts))
        texts.append(text)
    return texts


@given(edits())
@settings(max_examples=40, deadline=None)
def test_after_edits_everything_is_as_if_it_were_read_anew(texts: list[str]) -> None:
    project, path = Project(), FOLDER / "spec.etude"
    for text in texts:
        project.open(path, text)
        after, fresh = project.analysis(path), Project()
        fresh.open(path, text)
        anew = fresh.analysis(path)
        assert after
        assert anew
        assert after.trees == anew.trees
        assert diagnostics.diagnostics(after) == diagnostics.diagnostics(anew)
        assert after.program == anew.program
        hints = [inlay.hints(each, path, 0, len(text)) for each in (after, anew)]
        assert hints[0] == hints[1]


def ask(project: Project, path: Path, offset: int) -> None:
    """Everything that can be asked of a place."""
    analysis = project.analysis(path)
    assert analysis is not None
    if path not in analysis.trees:
        return
    lines, text = analysis.lines(path), analysis.source(path).text
    assert diagnostics.diagnostics(analysis).keys() == analysis.trees.keys()
    for function in PLACED:
        function(analysis, path, offset)
    outline.symbols(analysis, path)
    for fold in outline.folding(analysis, path):
        assert fold.start_line < fold.end_line
    for hint in inlay.hints(analysis, path, 0, len(text)):
        assert 0 <= lines.offset(hint.position) <= len(text)
    for action in actions.actions(analysis, path, 0, len(text)):
        assert action.edit
        assert action.edit.changes
    found = analysis.names.at(analysis.source(path), offset)
    if found:
        with suppress(navigation.Refused):
            navigation.rename([analysis], path, offset, "another")


@pytest.mark.parametrize("text", TEXTS, ids=["spec", "rounds"])
def test_every_place_of_a_spec_can_be_asked(text: str) -> None:
    project, path = Project(), FOLDER / "spec.etude"
    project.open(path, text)
    for offset in range(0, len(text), 7):
        ask(project, path, offset)


@given(edited())
@settings(max_examples=60, deadline=None)
def test_every_edit_can_be_asked(case: tuple[str, int]) -> None:
    text, cursor = case
    project, path = Project(), FOLDER / "spec.etude"
    project.open(path, text)
    ask(project, path, cursor)


@given(edited())
@settings(max_examples=60, deadline=None)
def test_pieces_are_read_as_the_whole(case: tuple[str, int]) -> None:
    source = Source("spec", case[0])
    whole, cut = Report(), Report()
    expected = parse(source, whole)
    if pieces(source.text) is not None:
        assert Parser().parse(source, cut) == expected
        assert [d.to_dict() for d in cut.ordered()] == [d.to_dict() for d in whole.ordered()]


@given(st.text(alphabet="ab🎼é\r\n\t", max_size=30), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_every_place_is_found_again(text: str, encoding: str) -> None:
    lines = Lines(text, encoding)
    for offset in range(len(text) + 1):
        found = lines.offset(lines.position(offset))
        assert found == offset or text[offset - 1 : offset + 1] == "\r\n"
