"""The driver: everyone who asks about a spec is told the same."""

from pathlib import Path

import pytest
from lsp_files import at
from specs import HEAD, after, analysed, check, stage

import etude
from etude.authoring.base import base_of
from etude.cli.main import main
from etude.compiler.driver import analyse, compile, compile_miniature
from etude.compiler.passes import SCHEDULED
from etude.compiler.program import Program
from etude.spec.findings.diagnostics import Report
from etude.spec.load import Sources, read, reads

UNBOUND = after("unbound", from_="first", stepz="3")
"""E308: found where blocks are bound."""
UNTRAINED = "stage uneven: train { from = first, steps = 10, batch = 40 tokens, lr = 1e-4 }\n"
"""E442: found by a pass."""
UNFIT = (
    "stage far: train { from = first, steps = 10, rope_theta = 1e6 }\n"
    "stage mean: average { of = [first, far] }\n"
)
"""E544: found by the pass after the schedules."""
WRONG = HEAD + stage() + UNBOUND + UNTRAINED
BOTH = {"E308", "E442"}


def saved(folder: Path, text: str) -> Path:
    path = folder / "spec.etude"
    path.write_text(text, encoding="utf-8")
    return path


def codes(report: Report) -> set[str]:
    return {found.code for found in report.errors}


def shown(error: str) -> set[str]:
    """The codes of the errors that a command has shown."""
    return {part.partition("]")[0] for part in error.split("error[")[1:]}


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["plan"],
        ["plan", "--miniature"],
        ["plan", "--why", "first.memory"],
        ["plan", "--emit", "torchtitan"],
        ["verify"],
        ["preview"],
        ["run"],
    ],
    ids=" ".join,
)
def test_every_command_shows_the_errors_of_all_passes(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command[0], str(saved(tmp_path, WRONG)), *command[1:]]) == 1
    assert shown(capsys.readouterr().err) == BOTH


def test_so_do_the_python_api_an_editor_and_what_continues_from_a_spec(tmp_path: Path) -> None:
    with pytest.raises(etude.SpecError) as loaded:
        etude.loads(WRONG)
    assert {d.code for d in loaded.value.diagnostics if d.severity == "error"} == BOTH
    analysis, *_ = at(tmp_path, WRONG)
    assert {d.code for d in analysis.diagnostics if d.severity == "error"} == BOTH
    report = Report()
    assert base_of(saved(tmp_path, WRONG), tmp_path, report) is None
    assert codes(report) == BOTH


def test_sound_blocks_are_checked_for_the_ranks_that_were_requested() -> None:
    text = HEAD + 'cluster box { gpus = 8 of "H100 80GB" }\n' + stage() + UNBOUND
    assert codes(analysed(text).report) == {"E308", "E451"}  # 4 sequences on 8 GPUs
    assert codes(analysed(text, ranks=2).report) == {"E308"}


def test_a_miniature_is_made_of_no_recipe_that_cannot_be_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(saved(tmp_path, HEAD + stage() + UNFIT))
    for command in (["plan", path], ["plan", path, "--miniature"], ["verify", path]):
        assert main(command) == 1
        assert shown(capsys.readouterr().err) == {"E544"}


def test_nothing_is_told_of_a_recipe_that_a_run_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in place of data: `plan`, and so also what explains the plan's figures."""
    (tmp_path / "texts.jsonl").mkdir()
    data = HEAD.replace("sample = python_docs", 'files = "texts.jsonl"')
    path = str(saved(tmp_path, data + stage()))
    for command in (["plan", path], ["plan", path, "--why", "first.tokens"]):
        assert main(command) == 1
        assert shown(capsys.readouterr().err) == {"E494"}


def test_only_check_and_editors_are_asked_about_every_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HEAD + stage() + "variant odd { first.batch = 40 tokens }\n"
    path = str(saved(tmp_path, text))
    assert main(["check", path]) == 1
    assert shown(capsys.readouterr().err) == {"E442"}
    for command in (["plan", path], ["plan", path, "--why", "first.tokens"]):
        assert main(command) == 0
        assert shown(capsys.readouterr().err) == set()
    analysis, *_ = at(tmp_path, text)
    assert [d.code for d in analysis.diagnostics if d.severity == "error"] == ["E442"]
    assert analysis.program


def test_errors_of_the_recipe_do_not_hide_those_of_its_variants() -> None:
    text = HEAD + stage() + after() + "variant odd { second.batch = 40 tokens }\n"
    for wrong in (UNBOUND, UNTRAINED.replace("40", "41")):
        (hidden,) = [
            d
            for d in analysed(text + wrong, each_variant="always").report.errors
            if d.message.startswith("variant")
        ]
        assert (hidden.code, hidden.span and hidden.span.text) == ("E442", "40 tokens")


def test_what_a_variant_allows_is_silent_beside_errors() -> None:
    text = HEAD + stage() + "variant steep { first.clip = 100, allow W606 `on purpose` }\n"
    text = text.replace("`", '"')
    for wrong in ("", UNBOUND):
        found = analysed(text + wrong, variant="steep").report
        assert "W606" not in {d.code for d in found.diagnostics}
        assert [each.finding.code for each in found.silenced] == ["W606"]


def test_editors_look_at_files_beside_errors_and_in_variants(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    data = 'dataset books { files = "folder" }\n' + after("reads", from_="first", data="books")
    analysis, *_ = at(tmp_path, HEAD + stage() + data + UNBOUND)
    assert {d.code for d in analysis.diagnostics if d.severity == "error"} == {"E308", "E494"}
    there = 'dataset books { files = "books.jsonl", awaited }\n'
    varied = data.replace('dataset books { files = "folder" }\n', there)
    text = HEAD + stage() + varied + 'variant other { books.files = "folder" }\n'
    analysis, *_ = at(tmp_path, text)
    assert [d.code for d in analysis.diagnostics if d.severity == "error"] == ["E494"]


def test_findings_about_files_are_the_last_and_hide_nothing(tmp_path: Path) -> None:
    """They come after all passes: there are no blocks left to be looked at again."""
    (tmp_path / "folder").mkdir()
    data = 'dataset books { files = "folder" }\n' + after("reads", from_="first", data="books")
    found = analyse(reads(HEAD + stage() + data), root=tmp_path)
    assert codes(found.report) == {"E494"}
    assert found.program
    assert compile(found) is None
    assert compile_miniature(analyse(reads(HEAD + stage() + data)))


def test_sources_can_be_taken_through_more_than_once(tmp_path: Path) -> None:
    path = saved(tmp_path, HEAD + stage() + after() + "variant brief { second.steps = 5 }\n")
    sources = read(path)
    steps = []
    for variant in ("", "brief", ""):
        made = compile(analyse(sources, variant=variant))
        assert made
        steps.append(made.plan.stages["second"].steps)
    assert steps == [10, 5, 10]
    broken = reads(HEAD + stage() + "stage other: train {{ }\n")
    first, second = (codes(analyse(broken).report) for _ in range(2))
    assert first == second != set()


def test_statements_can_be_added_to_sources() -> None:
    sources = reads(HEAD + stage()).more("this machine", "cluster here { cpus = 2 }")
    program = analyse(sources).program
    assert program
    assert program.trained("first").hardware.world_size == 2
    assert codes(analyse(sources.more("here", "cluster {")).report)


def test_what_fails_in_etude_itself_is_told_and_costs_no_other_finding() -> None:
    def fails(program: Program, report: Report) -> Program:
        raise ValueError("a bug")

    told: list[str] = []
    text = HEAD + stage()
    found = analyse(reads(text), passes=(*SCHEDULED, fails), crashed=told.append)
    assert told == ["the spec could not be checked"]
    assert found.program is None
    with pytest.raises(ValueError, match="a bug"):
        analyse(reads(text), passes=(fails,))
    varied = text + "variant odd { first.batch = 40 tokens }\n" + UNBOUND
    told.clear()
    found = analyse(reads(varied), passes=(fails,), each_variant="always", crashed=told.append)
    assert "the blocks without errors could not be checked" in told
    assert codes(found.report) == {"E308"}


def test_a_file_on_its_own_is_a_part_of_a_spec(tmp_path: Path) -> None:
    analysis, *_ = at(tmp_path, "dataset web { sample = python_docs }\n")
    assert not analysis.diagnostics
    assert analysis.program is None
    assert Sources(()).findings == ()
    assert check("")[0].code == "E304"
