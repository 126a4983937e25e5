"""Findings for other programs: SARIF against its official schema, GitHub's commands, JSON."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from specs import HEAD, stage

from etude.cli.main import main
from etude.spec.findings.codes import known

SCHEMA = Path(__file__).parents[2] / "data" / "sarif-schema-2.1.0.json"
BAD = HEAD + stage(data="{ web 97% }", tokenizer="wrods")
TWICE = HEAD + "dataset web { sample = arithmetic }\n" + stage()
LOOSE = HEAD + stage(
    clip="100", body='optimizer = adamw { weight_decay = 0 }\nallow N602 "a, 100%"'
)


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Checks texts, in files of their own, and returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def check(*texts: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        files = []
        for number, text in enumerate(texts):
            file = Path(f"a spec {number}.etude")
            file.write_text(text)
            files.append(str(file))
        code = main(["check", *files, *options])
        return code, capsys.readouterr().out

    return check


def sarif(text: str) -> dict[str, Any]:
    log = json.loads(text)
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(log)
    return log["runs"][0]


def test_a_sarif_log_is_valid_and_has_every_finding(checked: Any) -> None:
    code, out = checked(BAD, TWICE, LOOSE, options=("--format", "sarif"))
    assert code == 1
    run = sarif(out)
    found = [result["ruleId"] for result in run["results"]]
    assert {"E214", "E303", "W606", "N602"} <= set(found)
    rules = run["tool"]["driver"]["rules"]
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == found
    assert {r["defaultConfiguration"]["level"] for r in rules} == {"error", "warning", "note"}


def test_a_finding_in_sarif_has_its_place_and_the_other_one(checked: Any) -> None:
    run = sarif(checked(TWICE, options=("--format", "sarif"))[1])
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20spec%200.etude"
    assert place["region"] == {"startLine": 5, "startColumn": 9, "endLine": 5, "endColumn": 12}
    (other,) = result["relatedLocations"]
    assert other["physicalLocation"]["region"]["startLine"] == 3
    assert other["message"]["text"] == "first declared here"


def test_what_is_silenced_is_suppressed_in_sarif(checked: Any) -> None:
    run = sarif(checked(LOOSE, options=("--format", "sarif"))[1])
    (silenced,) = [result for result in run["results"] if "suppressions" in result]
    assert silenced["ruleId"] == "N602"
    assert silenced["suppressions"][0]["kind"] == "inSource"
    assert silenced["suppressions"][0]["justification"] == "a, 100%"


@pytest.mark.parametrize("text", ["", HEAD, "\0", 'use "nothing.etude"', HEAD + "stage x: train {"])
def test_sarif_of_whatever_the_file_holds_is_valid(checked: Any, text: str) -> None:
    assert sarif(checked(text, options=("--format", "sarif"))[1])["results"]


def test_sarif_of_what_is_fine_is_valid(checked: Any) -> None:
    code, out = checked(HEAD + stage(data="{ web 1, math 1 }"), options=("--format", "sarif"))
    assert (code, sarif(out)["results"]) == (0, [])


def test_github_commands_are_one_a_line_with_everything_escaped(checked: Any) -> None:
    code, out = checked(BAD, LOOSE, options=("--format", "github"))
    assert code == 1
    lines = out.splitlines()
    command = re.compile(r"::(error|warning|notice) ([^:]*)::(.+)")
    found = [command.fullmatch(line) for line in lines]
    assert all(found), lines
    first = dict(part.split("=", 1) for part in found[0][2].split(","))  # type: ignore[index]
    assert first["file"] == "a spec 0.etude"
    assert (first["line"], first["title"][:7]) == ("11", "E214%3A")
    assert "97%25, not 100%25%0A" in lines[0]


def test_json_is_the_same_by_either_option_and_has_what_is_silenced(checked: Any) -> None:
    code, out = checked(LOOSE, options=("--format", "json"))
    assert checked(LOOSE, options=("--json",)) == (code, out)
    shown = json.loads(out)
    assert [d["code"] for d in shown["silenced"]] == ["N602"]
    assert shown["silenced"][0]["reason"] == "a, 100%"
    assert shown["silenced"][0]["allowed_at"]["line"] == 14
    assert {d["code"] for d in shown["diagnostics"]} <= set(known())


def test_warnings_fail_a_strict_check_and_notes_do_not(checked: Any) -> None:
    assert checked(LOOSE)[0] == 0
    assert checked(LOOSE, options=("--strict",))[0] == 1
    assert checked(LOOSE.replace("clip = 100", ""), options=("--strict",))[0] == 0
