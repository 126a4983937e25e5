"""The extension for VS Code: its grammar against the language, and on real files."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from etude.spec.text.keywords import BLOCKS

EXTENSION = Path(__file__).resolve().parents[3] / "editors" / "vscode"


def test_the_grammar_is_up_to_date() -> None:
    made = runpy.run_path(str(EXTENSION / "generate.py"))["text"]()
    path = EXTENSION / "syntaxes" / "etude.tmLanguage.json"
    assert path.read_text(encoding="utf-8") == made, "run: python editors/vscode/generate.py"


def test_every_block_is_a_keyword_of_the_grammar() -> None:
    text = (EXTENSION / "syntaxes" / "etude.tmLanguage.json").read_text(encoding="utf-8")
    rules = json.loads(text)["repository"]
    words = set(re.findall("[a-z]+", rules["declaration"]["match"] + rules["bare"]["match"]))
    assert set(BLOCKS) <= words


def test_what_the_package_names_is_there() -> None:
    package = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
    given = package["contributes"]
    files = [package["main"], *(of["path"] for of in given["grammars"])]
    files += [of["configuration"] for of in given["languages"]]
    assert [file for file in files if not (EXTENSION / file).is_file()] == []
    settings = set(given["configuration"]["properties"])
    used = set(re.findall(r'"(etude\.\w+)"', (EXTENSION / "extension.js").read_text()))
    assert used <= settings | {of["command"] for of in given["commands"]}


def test_the_snapshots_are_of_the_examples_as_they_are() -> None:
    """Without Node too: a changed example whose snapshot was forgotten is found everywhere."""
    snapshots = EXTENSION / "test" / "snapshots"
    old = []
    for file in EXTENSION.parents[1].joinpath("examples").glob("*.etude"):
        snapshot = snapshots / f"{file.name}.txt"
        lines = [f"> {line}" for line in file.read_text(encoding="utf-8").split("\n")]
        of = snapshot.read_text(encoding="utf-8").split("\n") if snapshot.is_file() else []
        if [line for line in of if line.startswith("> ")] != lines:
            old.append(file.name)
    assert old == [], "run: cd editors/vscode && UPDATE=1 npm test"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
@pytest.mark.skipif(
    not (EXTENSION / "node_modules" / "vscode-textmate").is_dir(),
    reason="the engine is not installed: run `npm ci` in editors/vscode",
)
def test_the_tokens_of_real_files_are_those_of_the_snapshots() -> None:
    done = subprocess.run(
        ["node", "--test", "test/"], cwd=EXTENSION, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout
