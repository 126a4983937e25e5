"""The language server's answers about a text: places, findings, hover, hints, outline."""

import math
from pathlib import Path

import pytest
from lsp_files import SPEC, at, opened
from lsprotocol import types
from specs import HEAD, POST_TRAINING, stage

from etude.lsp.context import context
from etude.lsp.diagnostics import diagnostics
from etude.lsp.hover import hover
from etude.lsp.inlay import hints
from etude.lsp.outline import folding, symbols
from etude.lsp.parsing import Parser, pieces
from etude.lsp.positions import Lines
from etude.lsp.rules import UNUSED
from etude.spec.findings.codes import known
from etude.spec.findings.diagnostics import Report
from etude.spec.source import Source
from etude.spec.text.parse import parse

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.etude"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_places_and_characters_are_each_others_inverse(encoding: str, end: str) -> None:
    text = end.join(["# 𝔘nicode: 🎼 ß", 'title = "🎼 x"', "", "last"])
    lines = Lines(text, encoding)
    inside = [n for n in range(len(text) + 1) if text[n - 1 : n + 1] != "\r\n"]
    assert [lines.offset(lines.position(n)) for n in inside] == inside


def test_columns_count_what_the_encoding_says() -> None:
    text = '# a\n"🎼é" x'
    at_x = text.index("x")
    columns = {e: Lines(text, e).position(at_x).character for e in ("utf-8", "utf-16", "utf-32")}
    assert columns == {"utf-8": 9, "utf-16": 6, "utf-32": 5}


def test_places_outside_the_text_are_its_nearest() -> None:
    lines = Lines("ab\nc")
    assert lines.offset(types.Position(0, 99)) == 2
    assert lines.offset(types.Position(99, 0)) == 4
    assert lines.position(99) == types.Position(1, 1)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pieces_are_read_as_the_whole(path: Path) -> None:
    source = Source("spec", path.read_text(encoding="utf-8"))
    parser = Parser()
    for _ in range(2):  # the second time from what is known
        report = Report()
        assert parser.parse(source, report) == parse(source, Report())
        assert not report.diagnostics
    assert len(pieces(source.text) or []) > 5


@pytest.mark.parametrize(
    "broken",
    ["steps = ", "lr = 1e-3 ->", "x y z", "size = 'a'", "batch = 4 5", "= 3", 'title = "a'],
)
def test_a_broken_piece_is_reported_as_in_the_whole(broken: str) -> None:
    text = HEAD + f"stage a: train {{\n  {broken}\n}}\n# c\nmodel b {{ layers = 2 }}\n"
    source = Source("spec", text)
    whole, cut = Report(), Report()
    assert Parser().parse(source, cut) == parse(source, whole)
    assert [d.to_dict() for d in cut.diagnostics] == [d.to_dict() for d in whole.diagnostics]
    assert whole.diagnostics


def test_texts_with_braces_that_do_not_match_are_read_as_a_whole() -> None:
    assert pieces("a { b = [ }\n") is None
    assert pieces("a { }\n}\n") is None
    assert pieces('a { b = "{" } # {\nc = 1') == [(0, 18), (18, 23)]
    assert pieces("let a = { b 1 }\n  then c\nd { }\n") == [(0, 31)]


def test_findings_have_places_codes_and_other_places(tmp_path: Path) -> None:
    text = "# 🎼\n" + SPEC + 'model tiny { }\ncluster c { nodes = "🎼", nodes = 2 }\n'
    analysis, path, _ = at(tmp_path, text)
    (first, second, *_) = diagnostics(analysis)[path]
    lines = text.splitlines()
    assert (first.code, first.source) == ("E303", "etude")
    assert lines[first.range.start.line].startswith("model tiny")
    assert (first.range.start.character, first.range.end.character) == (6, 10)
    assert first.code_description
    assert first.code_description.href.endswith("/E303/")
    assert first.related_information
    assert first.related_information[0].location.uri == path.as_uri()
    assert "help: rename one of them" in first.message
    # The second `family` stands behind a character that takes two units of UTF-16.
    assert second.code == "E309"
    assert second.range.start.character == lines[-1].rindex("nodes") + 1


def test_warnings_are_shown_beside_errors(tmp_path: Path) -> None:
    warm = stage(lr="0 -> 1e-3 for 50% then 1e-3")
    for wrong, code in (("nonsense = 1", "E308"), ("data = nowhere", "E402"), ("lr = ", "E101")):
        text = HEAD + warm + f"stage other: train {{\n  steps = 10\n  {wrong}\n}}\n"
        analysis, path, _ = at(tmp_path, text)
        found = {of.code for of in diagnostics(analysis)[path]}
        assert {"W601", code} <= found


def test_what_can_go_is_shown_pale(tmp_path: Path) -> None:
    analysis, path, _ = at(tmp_path, SPEC + "let nobody = 3\n")
    pale = {of.code for of in diagnostics(analysis)[path] if of.tags}
    assert pale == {"N652", "N656"}
    assert set(known()) >= UNUSED


def test_a_used_file_is_seen_as_the_editor_shows_it(tmp_path: Path) -> None:
    main, part = tmp_path / "main.etude", tmp_path / "part.etude"
    main.write_text('use "part.etude"\n' + SPEC)
    part.write_text("dataset more { sample = arithmetic }\n")
    project, path, _ = opened(tmp_path, 'use "part.etude"\n' + SPEC, "main.etude")
    analysis = project.analysis(path)
    assert analysis
    assert all(of.severity != "error" for of in analysis.diagnostics)
    project.open(part.resolve(), "dataset more { sample = arithmetik }\n")
    analysis = project.analysis(path)
    assert analysis
    assert [d.code for d in diagnostics(analysis)[part.resolve()]] == ["E202"]


def test_a_part_is_looked_at_within_the_spec_that_uses_it(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "main.etude").write_text('use "parts/stages.etude"\n' + HEAD)
    project, path, _ = opened(tmp_path, stage(data="webb"), "parts/stages.etude")
    project.folders = [tmp_path.resolve()]
    analysis = project.analysis(path)
    assert analysis
    assert analysis.main == (tmp_path / "main.etude").resolve()
    assert [d.code for d in diagnostics(analysis)[path]] == ["E402"]


def test_a_part_that_nobody_uses_lacks_nothing(tmp_path: Path) -> None:
    analysis, path, _ = at(tmp_path, "dataset web { sample = arithmetik }\n")
    assert [d.code for d in diagnostics(analysis)[path]] == ["E202"]


def shown(folder: Path, text: str) -> str:
    found = hover(*at(folder, text))
    if found is None:
        return ""
    assert isinstance(found.contents, types.MarkupContent)
    return found.contents.value


@pytest.mark.parametrize(
    ("written", "marked", "parts"),
    [
        ("lr =", "¦lr =", ["learning rate", "0 → 0.001 linear — steps 0 to 10 (640 tokens)"]),
        ("steps = 100", "steps = ¦100", ["100 steps, 6,400 tokens", "epochs: web 2"]),
        ("for 10 steps", "for ¦10 steps", ["10 steps", "640 tokens"]),
        ("batch =", "bat¦ch =", ["4 sequences of 16: 64 tokens a step"]),
        ("data =", "dat¦a =", ["web 100%", "web 2"]),
        ("model = tiny", "¦model = tiny", ["2 layers, dim 64", "vocabulary 300"]),
        ("model = tiny", "model = ti¦ny", ["model tiny { layers = 2"]),
        ("data = web", "data = w¦eb", ["dataset web", "first: 2 epochs"]),
        ("-> peak", "-> pe¦ak", ["let peak = 1e-3"]),
        (": train", ": tr¦ain", ["Next-token training"]),
        ("tokens = 3200", "tokens = ¦3200", ["3,200 tokens", "number of tokens"]),
        ("layers", "¦layers", ["transformer layers"]),
    ],
)
def test_hover_tells_value_and_meaning(
    written: str, marked: str, parts: list[str], tmp_path: Path
) -> None:
    assert written in SPEC
    text = shown(tmp_path, SPEC.replace(written, marked, 1))
    assert all(part in text for part in parts), text


def test_hover_tells_the_source_of_a_value(tmp_path: Path) -> None:
    text = HEAD + stage(clip='0.5 assumed "none is named"').replace("clip", "cl¦ip", 1)
    assert "assumed: none is named" in shown(tmp_path, text)


def test_hover_on_a_finding_shows_its_rule(tmp_path: Path) -> None:
    text = shown(tmp_path, SPEC.replace("data = web", "data = web¦b"))
    assert "E402" in text
    assert "Right:" in text


def test_values_in_rounds_are_told_for_each_round(tmp_path: Path) -> None:
    text = shown(tmp_path, POST_TRAINING.replace("data = ranked", "da¦ta = ranked"))
    assert "in `align.1.rm`:\n\nranked[1] 100%" in text
    assert "in `align.2.rm`:\n\nranked[1..2] 100%" in text


def test_hints_say_steps_tokens_epochs_and_ends(tmp_path: Path) -> None:
    text = SPEC.replace("cosine over", "cosine  over")
    analysis, path, _ = at(tmp_path, text)
    lines = text.splitlines()
    found = {}
    for hint in hints(analysis, path, 0, len(text)):
        before = lines[hint.position.line][: hint.position.character]
        found[before.split()[-1], str(hint.label)] = before
    said = {label for _, label in found}
    assert {"= 640 tokens", "= 100 steps, 6,400 tokens", "2 epochs"} <= said
    # A name's value; and 90 of the 200 steps of the cosine from 1e-3 to 1e-5.
    ends = [label for _, label in found if label.startswith("ends at")]
    expected = 1e-3 + (1e-5 - 1e-3) * (1 - math.cos(math.pi * 90 / 200)) / 2
    assert ends == ["ends at 0.001", f"ends at {expected:.4g}"]


def test_there_are_no_hints_where_nothing_is_resolved(tmp_path: Path) -> None:
    analysis, path, _ = at(tmp_path, SPEC + "model tiny { }\n")
    assert hints(analysis, path, 0, 10**6) == []


def test_the_outline_has_declarations_and_attributes(tmp_path: Path) -> None:
    analysis, path, _ = at(tmp_path, POST_TRAINING)
    found = {of.name: of for of in symbols(analysis, path)}
    assert list(found)[:4] == ["test", "tiny", "web", "math"]
    inner = found["align"].children or []
    assert [of.name for of in inner] == ["rm", "drafts", "sft", "dpo", "chat"]
    assert inner[0].detail == "stage: reward"
    assert [of.name for of in inner[0].children or []][:3] == ["from", "data", "steps"]


def test_folding_goes_by_braces_and_comments(tmp_path: Path) -> None:
    text = "# a\n# b\nmodel m {\n  layers = 2\n  dim = 3\n}\n# c\nstage s: train {\n  lr = [\n"
    analysis, path, _ = at(tmp_path, text)
    found = [(of.start_line, of.end_line) for of in folding(analysis, path)]
    assert found == [(0, 1), (2, 4)]


def test_what_stands_before_the_cursor_is_told_in_broken_texts() -> None:
    text = "stage a: train {\n  lr = 0 -> 1\n    then 2\n  data = { web 10%, ma"
    found = context(text, len(text))
    assert [frame.words for frame in found.frames] == [["stage", "a", ":", "train"], ["data", "="]]
    assert (found.prefix, [t.text for t in found.statement]) == ("ma", [])
    found = context(text, text.index("then ") + 5)
    assert [t.text for t in found.statement] == ["lr", "=", "0", "->", "1", "then"]


def test_a_repeat_is_hinted_in_its_first_turn(tmp_path: Path) -> None:
    turns = "lr = repeat 4 times { 1e-3 for 10 steps then -> 1e-4 for 15% }"
    analysis, path, _ = at(tmp_path, HEAD + stage(lr=turns[5:]))
    found = [str(hint.label) for hint in hints(analysis, path, 0, 10**6)]
    assert [label for label in found if "tokens" in label][-2:] == [
        "= 640 tokens",
        "= 15 steps, 960 tokens",
    ]
    marked = turns.replace("15%", "¦15%")
    assert "15 steps, 960 tokens" in shown(tmp_path, HEAD + stage(lr=marked[5:]))
