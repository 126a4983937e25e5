"""The command line as such: usage, `explain`, `schema`, `--version`."""

import gc
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
from etude_cli import etude
from specs import HEAD, stage

from etude.cli.main import main
from etude.spec.findings.codes import known, rule


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line turns the garbage collector off; the tests continue."""
    yield
    gc.enable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["dance"],
        ["check"],
        ["plan"],
        ["plan", "a", "b"],
        ["plan", "a", "--ranks", "0"],
        ["plan", "a", "--ranks", "-1"],
        ["plan", "a", "--ranks", "two"],
        ["plan", "a", "--ranks", "9" * 5000],
        ["check", "--yes", "a"],
        ["schema"],
        ["schema", "toml"],
        ["explain"],
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: etude" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"etude {version('etude')}\n"


@pytest.mark.parametrize("code", known())
def test_every_code_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code.lower()]) == 0
    shown = capsys.readouterr().out
    page = rule(code)
    assert shown.startswith(f"{code}: {page.title}\n\n")
    assert " ".join(page.text.split()) in " ".join(shown.split())
    for example in (page.wrong, page.right):
        for line in "\n".join([example.shell, *example.texts.values()]).splitlines():
            assert line in shown
    # The finding, as it is shown.
    assert page.wrong.shell or not page.wrong.texts or f"[{code}]: " in shown


def test_a_code_is_explained_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "E214", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["code"], shown["severity"]) == ("E214", "error")
    assert [d["code"] for d in shown["wrong"]["diagnostics"]] == ["E214"]
    assert shown["right"]["diagnostics"] == []
    assert "model tiny" in shown["wrong"]["frame"]


def test_a_mistyped_code_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "E2014"]) == 1
    assert "did you mean `E2" in capsys.readouterr().err


def test_the_schema_of_plans_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "plan"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "jobs" in schema["properties"]


def test_the_status_of_what_is_no_run_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "missing", Path("/dev/null")):
        assert main(["status", str(folder)]) == 1
        assert "is not a run folder" in capsys.readouterr().err


def test_the_installed_command_and_the_module_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "spec.etude").write_text(HEAD + stage())
    assert etude("check", "spec.etude", cwd=tmp_path).returncode == 0
    done = etude("dance", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
