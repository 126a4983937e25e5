"""The language server's help in writing: completion, names, renames, quick fixes."""

import re
from pathlib import Path

import pytest
from lsp_files import SPEC, at, opened
from lsprotocol import types
from specs import HEAD, POST_TRAINING, stage

from etude.compiler.claims.claims import COUNTED, ESTIMATES, SUMS
from etude.compiler.claims.in_force import MOMENTS
from etude.lsp.actions import actions
from etude.lsp.completion import completion
from etude.lsp.navigation import Refused, definition, highlights, references, rename, renameable
from etude.lsp.project import Analysis
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads
from etude.spec.schema import recipe as r
from etude.spec.schema.kinds import Kind
from etude.spec.text.parse import _reach as reach


def offered(folder: Path, text: str) -> list[str]:
    return [item.label for item in completion(*at(folder, text))]


def test_attributes_are_asked_what_they_take() -> None:
    def kind(model: type[r.Declaration], name: str) -> Kind:
        return r.attributes(model)[name].kind

    assert kind(r.Train, "precision").choices == ("bf16", "fp32", "fp8", "mxfp8", "nvfp4")
    assert kind(r.Sample, "keep").choices == ("best", "all")
    assert kind(r.Dpo, "normalize").choices == ("true", "false")
    assert kind(r.Train, "lr").choices == ("last",)
    assert kind(r.Train, "batch").units == ("seqs", "tokens")
    assert kind(r.Dpo, "batch").units == ("pairs",)
    assert kind(r.Train, "clip").units == ()


S = HEAD + "stage first: train {\n  model = tiny\n  "


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("¦", ["recipe", "stage", "let", "use"], ["lr"]),
        ("stage a: ¦", ["train", "dpo", "evaluate"], ["stage"]),
        (S + "¦", ["lr", "batch", "checkpoint", "gate", "allow"], ["model", "dialog"]),
        (S + "¦\n  lr = 1\n}", ["batch"], ["lr", "model"]),
        (S + "model2 = ¦", [], ["tiny"]),
        (S + "from = ¦", [], ["first", "web"]),
        (S + "model = ti¦", ["tiny"], ["web"]),
        (S + "data = ¦", ["web", "math", "last"], ["tiny", "first"]),
        (S + "data = { web 50%, ¦", ["math"], ["web", "tiny"]),
        (S + "data = { web 50% } -> { ¦", ["math", "web"], ["tiny"]),
        (S + "batch = 4Mi ¦", ["tokens", "seqs", "then", "until"], ["pairs"]),
        (S + "batch = 4Mi¦", [], ["tokens"]),
        (S + "lr = 0 -> 1e-3 for 10 ¦", ["steps", "tokens"], ["seqs"]),
        (S + "lr = 0 -> 1e-3 ¦", ["linear", "cosine", "over", "then", "for"], ["web"]),
        (S + "lr = ¦", ["last"], ["web"]),
        (S + "lr = 1e-3 ¦", ["then", "for", "until", "->", "cite"], ["cosine", "over", "of"]),
        (S + "lr = 1e-3 for 1B tokens ¦", ["then", "assumed"], ["for", "->", "within"]),
        (S + "data = last ¦", ["with", "then"], ["or", "every"]),
        (S + "data = { web 50% } ¦", ["then", "->"], ["with"]),
        (S + "from = first ¦", ["or", "cite"], ["then", "with"]),
        (S + "average = polyak ¦", ["every"], ["over"]),
        (S + "average = polyak every 2 steps ¦", ["over"], ["every"]),
        (S + "gate seq_len {\n otherwise ¦", ["extend"], ["at"]),
        (S + "gate seq_len {\n otherwise extend 1B tokens ¦", ["at"], ["extend"]),
        (S + "gate seq_len {\n require needle >= 90% ¦", ["of"], ["at"]),
        (S + "gate seq_len {\n require loss(short) <= 102% of ¦", ["start"], ["short"]),
        ("dataset d {\n keep 10% ¦", ["where"], ["in", "every"]),
        ("dataset d {\n drop where url ¦", ["in"], ["where"]),
        ("cluster c {\n gpus = 8 ¦", ["of", "cite"], ["then"]),
        ("expect {\n first.lr ¦", ["at"], ["within"]),
        ("expect {\n first.steps = 3 ¦", ["within", "cite"], ["because", "then"]),
        ("expect {\n first.steps = 3 within 1% ¦", ["because", "contradicted"], ["within"]),
        (S + "precision = ¦", ["bf16", "fp32"], ["none"]),
        (S + "parallel = { tensor 2, ¦", ["shard", "pipeline"], ["tensor"]),
        (S + "optimizer = ¦", ["adamw", "adam", "muon", "adafactor", "lion", "last"], []),
        (S + "optimizer = adamw { ¦", ["betas", "eps"], ["lr"]),
        (S + "recompute = ¦", ["none", "full", "budget"], ["fp8"]),
        (S + "precision = ¦", ["bf16", "fp8", "nvfp4 { … }"], ["full"]),
        (S + "precision = fp8 { ¦", ["recipe", "except", "bf16_last"], ["lr"]),
        (S + "precision = fp8 { except = [¦", ["output", "router", "attention"], []),
        (S + "checkpoint ¦", ["every"], ["lr"]),
        (S + "gate seq_len {\n ¦", ["require", "otherwise", "needle"], ["lr"]),
        (S + "gate seq_len {\n require loss(¦", ["short", "web"], ["tiny"]),
        ('model m { size = "¦', ["405B", "8B"], []),
        ("tokenizer t { ¦", ["bytes", "train", "hub"], []),
        ("dataset d { kind = ¦", ["dialogs", "prompts"], []),
        (HEAD + "tokenizer t { train = { on [¦", ["web", "math"], ["tiny"]),
        (POST_TRAINING + "stage e: evaluate { from = align.¦", ["chat", "rm"], ["first"]),
        (POST_TRAINING + "stage e: evaluate { from = align.chat[¦", ["1", "2"], ["round"]),
        (
            POST_TRAINING + "expect {\n  first.¦",
            [*COUNTED, *ESTIMATES, *MOMENTS],
            ["optimizer", "first"],
        ),
        (POST_TRAINING + "expect {\n  ¦", [*COUNTED, *SUMS, "first", "align"], ["memory", "lr"]),
        (POST_TRAINING + "expect {\n  align.¦", ["chat", "rm"], ["first"]),
        (POST_TRAINING + "expect {\n  first.memory = 3 ¦", ["GiB", "within", "cite"], ["h"]),
        (POST_TRAINING + "expect {\n  first.flops = 3 ¦", ["within", "cite"], ["h"]),
        (SPEC + "expect {\n  first.flops = ¦", ["peak"], ["within"]),
        (
            POST_TRAINING.replace("from = first, data = ranked", "from = ¦"),
            ["first", "chat", "previous.chat"],
            ["rm", "asked"],
        ),
        (POST_TRAINING.replace("ranked[1..round]", "ranked[¦"), ["round", "1..round"], []),
        (POST_TRAINING.replace("drafts.pairs", "drafts.¦"), ["pairs"], ["first"]),
        (SPEC + "variant a { first.lr = 1 }\nstage m: average { of = [a¦", ["a", "first"], ["lr"]),
        (SPEC + "variant a { first.lr = 1 }\nstage m: average { of = [a.¦", ["first"], ["a"]),
        (SPEC + "variant a {\n  ¦", ["first", "tiny", "web", "peak"], ["lr"]),
        (SPEC + "variant a {\n  first.¦", ["lr", "batch"], ["layers"]),
        (SPEC + "variant a {\n  model.tiny.¦", ["layers", "dim"], ["lr"]),
        (SPEC + "variant a {\n  model.¦", ["tiny"], ["first"]),
        (POST_TRAINING + "variant a {\n  align.dpo.¦", ["beta"], ["layers"]),
        (POST_TRAINING + "variant a {\n  align.¦", ["dpo", "rm", "rounds"], ["beta", "layers"]),
        (SPEC + "variant a {\n  first.optimizer.¦", ["betas", "eps"], ["lr"]),
        (SPEC + "variant a {\n  model.tiny.experts.¦", ["count"], ["lr", "dim"]),
        (SPEC + "variant a {\n  recipe.¦", ["seed", "title"], ["lr"]),
        (SPEC + "variant a {\n  first.precision = ¦", ["bf16", "default", "peak"], ["web"]),
        (SPEC + "variant a {\n  first.data = ¦", ["web", "last", "default"], ["tiny"]),
        (SPEC + "variant a {\n  first.batch = 4 ¦", ["seqs", "tokens"], ["steps"]),
        (SPEC + "variant a {\n  tiny.tied = ¦", ["true", "default"], ["web"]),
        (POST_TRAINING + "variant a {\n  labels.awaited = ¦", ["true", "false"], ["web"]),
        (S + "average = polyak every 2 ¦", ["steps"], ["tokens"]),
        (S + "average = polyak every 2 steps over 5 ¦", ["steps", "tokens"], []),
        (S + "rope_scaling =¦", ["none", "llama", "yarn { … }"], []),
        (S + "rope_scaling =\n  ¦", ["none", "llama", "yarn { … }"], []),
        (HEAD + "# ¦", [], ["recipe"]),
        (HEAD + 'recipe x { title = "¦', [], ["recipe"]),
    ],
)
def test_completion_offers_what_may_stand_there(
    text: str, some: list[str], none: list[str], tmp_path: Path
) -> None:
    found = offered(tmp_path, text)
    assert set(some) <= set(found), found
    assert not set(none) & set(found), found


def test_a_keyword_that_is_offered_can_be_read_there(tmp_path: Path) -> None:
    """In gaps all over a spec, with nothing behind them."""
    checked = 0
    for gap in list(re.finditer(r"(?<=\S) (?=\S)", POST_TRAINING))[::5]:
        before = POST_TRAINING[: gap.end()]
        for item in completion(*at(tmp_path, before + "¦")):
            edit = item.text_edit
            if item.kind is types.CompletionItemKind.Keyword and edit:
                text = before + re.sub(r"\$\{\d:([^}]*)\}", r"\1", edit.new_text)
                assert reach(text + "\n") >= len(text), text[-80:]
                checked += 1
    assert checked > 20


def test_what_is_accepted_replaces_what_was_typed(tmp_path: Path) -> None:
    analysis, path, offset = at(tmp_path, S + 'title = "🎼", precision = b¦')
    (item,) = [of for of in completion(analysis, path, offset) if of.label == "bf16"]
    assert isinstance(item.text_edit, types.TextEdit)
    lines = analysis.lines(path)
    start, end = item.text_edit.range.start, item.text_edit.range.end
    assert analysis.source(path).text[lines.offset(start) : lines.offset(end)] == "b"
    # The note behind the text counts two units of UTF-16.
    assert end.character == offset - lines.starts[-1] + 1


def test_files_to_use_are_offered(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "data.etude").write_text("")
    assert offered(tmp_path, 'use "¦') == ["parts/data.etude"]


def words(analysis: Analysis, places: list[types.Location]) -> list[tuple[int, str]]:
    """Line and word of each place."""
    found = []
    for place in places:
        (path,) = [path for path in analysis.trees if path.as_uri() == place.uri]
        lines = analysis.lines(path)
        start, end = lines.offset(place.range.start), lines.offset(place.range.end)
        found.append((place.range.start.line, analysis.source(path).text[start:end]))
    return found


@pytest.mark.parametrize(
    ("written", "marked", "declared"),
    [
        ("data = web", "data = w¦eb", "dataset web"),
        ("-> peak", "-> p¦eak", "let peak"),
        ("model = tiny", "model = tiny¦", "model tiny"),
    ],
)
def test_a_name_leads_to_its_declaration(
    written: str, marked: str, declared: str, tmp_path: Path
) -> None:
    analysis, path, offset = at(tmp_path, SPEC.replace(written, marked))
    place = definition(analysis, path, offset)
    assert place
    ((line, word),) = words(analysis, [place])
    assert analysis.source(path).text.splitlines()[line].startswith(declared)
    assert word == declared.split()[1]


@pytest.mark.parametrize(
    ("name", "count"), [("rm", 3), ("drafts", 4), ("chat", 5), ("align", 5), ("asked", 3)]
)
def test_references_are_found_inside_and_outside_of_rounds(
    name: str, count: int, tmp_path: Path
) -> None:
    analysis, path, _ = at(tmp_path, POST_TRAINING)
    (declared,) = [d for d in analysis.names.declarations.values() if d.symbol.name == name]
    found = references(analysis, path, declared.word.span.start)
    assert {word for _, word in words(analysis, found)} == {name}
    assert len(found) == count
    shown = highlights(analysis, path, declared.word.span.start)
    assert [of.kind for of in shown].count(types.DocumentHighlightKind.Write) == 1
    without = references(analysis, path, declared.word.span.start, declaration=False)
    assert len(without) == count - 1


def renamed(project_text: str, edits: list[types.TextEdit], analysis: Analysis, path: Path) -> str:
    lines = analysis.lines(path)
    text = project_text
    for edit in sorted(edits, key=lambda e: lines.offset(e.range.start), reverse=True):
        start, end = lines.offset(edit.range.start), lines.offset(edit.range.end)
        text = text[:start] + edit.new_text + text[end:]
    return text


@pytest.mark.parametrize("name", ["rm", "drafts", "chat", "align", "asked", "first", "tiny"])
def test_a_renamed_spec_means_what_it_meant(name: str, tmp_path: Path) -> None:
    analysis, path, _ = at(tmp_path, POST_TRAINING)
    (declared,) = [d for d in analysis.names.declarations.values() if d.symbol.name == name]
    edits = rename([analysis], path, declared.word.span.start, "renamed")
    text = renamed(POST_TRAINING, edits[path.as_uri()], analysis, path)
    report = Report()
    recipe = loads(text, report)
    assert recipe
    again, *_ = at(tmp_path, text)
    assert not [d.message for d in again.diagnostics if d.severity == "error"]
    assert again.program
    assert analysis.program
    expected = [
        stage.replace(name, "renamed") if name in stage.split(".") else stage
        for stage in analysis.program.stages
    ]
    assert list(again.program.stages) == expected


@pytest.mark.parametrize(
    "name",
    [
        "Web",
        "2x",
        "",
        "a.b",
        "drücken",
        "math",
        "first",
        "peak",
        "last",
        "then",
        "every",
        "at",
        "in",
        "cite",
        "because",
        "use",
        "round",
        "auto",
        "default",
    ],
)
def test_a_name_that_cannot_be_or_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    analysis, path, offset = at(tmp_path, SPEC.replace("dataset web", "dataset w¦eb"))
    with pytest.raises(Refused):
        rename([analysis], path, offset, name)


def test_variants_name_what_they_change(tmp_path: Path) -> None:
    text = SPEC + "variant a {\n  peak = 2e-3\n  first.data = math\n  model.tiny.dim = 128\n}\n"
    analysis, path, _ = at(tmp_path, text)
    assert not [d for d in analysis.diagnostics if d.severity == "error"]
    lines = text.splitlines()
    ends = {}
    for name in ("peak", "first", "math", "tiny"):
        (declared,) = [d for d in analysis.names.declarations.values() if d.symbol.name == name]
        found = references(analysis, path, declared.word.span.start)
        ends[name] = lines[max(place.range.start.line for place in found)].strip()
    assert ends == {
        "peak": "peak = 2e-3",
        "first": "first.data = math",
        "math": "first.data = math",
        "tiny": "model.tiny.dim = 128",
    }


def test_what_is_no_name_cannot_be_renamed(tmp_path: Path) -> None:
    analysis, path, offset = at(tmp_path, SPEC.replace("steps = 100", "ste¦ps = 100"))
    assert renameable(analysis, path, offset) is None
    with pytest.raises(Refused):
        rename([analysis], path, offset, "x")


def test_a_rename_reaches_the_files_that_are_used(tmp_path: Path) -> None:
    part = (tmp_path / "part.etude").resolve()
    part.write_text("dataset more { sample = arithmetic }\n")
    text = 'use "part.etude"\n' + HEAD + stage(data="m¦ore")
    project, path, offset = opened(tmp_path, text)
    analysis = project.analysis(path)
    assert analysis
    place = definition(analysis, path, offset)
    assert place
    assert place.uri == part.as_uri()
    edits = rename(project.analyses(path), path, offset, "sums")
    assert set(edits) == {path.as_uri(), part.as_uri()}
    # Asked in the part, the same: it is a part of the spec above it.
    project.open(part, part.read_text())
    from_part = rename(project.analyses(part), part, len("dataset m"), "sums")
    assert from_part.keys() == edits.keys()


def fixed(folder: Path, text: str) -> dict[str, str]:
    """The text after each fix that is offered, by title."""
    analysis, path, _ = at(folder, text)
    found = {}
    for action in actions(analysis, path, 0, len(text)):
        assert action.edit
        assert action.edit.changes
        assert action.diagnostics
        edits = list(action.edit.changes[path.as_uri()])
        found[action.title] = renamed(text, edits, analysis, path)
    return found


@pytest.mark.parametrize(
    ("wrong", "title", "right"),
    [
        (stage(data="webb"), "Replace with `web`", "data = web,|data = web\n"),
        (stage(data="{ webb 50%, math 50% }"), "Replace with `web`", "{ web 50%, math 50% }"),
        (stage(batch="4"), "Write it in seqs", "batch = 4 seqs"),
        (stage(lr="1e-3 for 5 then 1e-4"), "Write it in steps", "1e-3 for 5 steps then 1e-4"),
        (stage("a", "presicion = bf16"), "Replace with `precision`", "precision = bf16"),
        (stage(data="{ web 50%, math 40% }"), "Set `math` to 50%", "{ web 50%, math 50% }"),
        (
            stage(data="{ web 50%, math 40% }"),
            "Write plain weights, which are normalized",
            "{ web 50, math 40 }",
        ),
        (stage(batch="4K seqs"), "Write `Ki`: times 1024", "4Ki seqs"),
        (stage(steps="0.5"), "Write 1", "steps = 1"),
        ('dataset x { files = "a }\n' + stage(), 'Close the text with `"`', '"a }"'),
        (stage().replace(": train", ": trian"), "Replace with `train`", "stage first: train"),
        (
            stage() + "tokenizer a { bytes }\ntokenizer b { bytes }\n",
            "Add `tokenizer = a`",
            "tokenizer = a",
        ),
    ],
)
def test_quick_fixes_do_what_the_help_says(
    wrong: str, title: str, right: str, tmp_path: Path
) -> None:
    found = fixed(tmp_path, HEAD + wrong)
    assert title in found, found.keys()
    assert any(part in found[title] for part in right.split("|")), found[title]


def test_a_warning_can_be_allowed_in_its_block(tmp_path: Path) -> None:
    before, *_ = at(tmp_path, SPEC)
    codes = [d.code for d in before.diagnostics]
    assert "W603" in codes
    (text,) = [text for title, text in fixed(tmp_path, SPEC).items() if "W603" in title]
    assert 'allow W603 "' in text
    after, *_ = at(tmp_path, text)
    assert [d.code for d in after.diagnostics] == [code for code in codes if code != "W603"]
