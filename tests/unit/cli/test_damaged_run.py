"""Run folders of which a file is damaged: commands that read them say so, or leave it out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import Folder

from etude.cli.main import main
from etude.runtime.run_folder.outcomes import outcomes, steps


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "run")
    made.finish("tokenizer.letters", "dataset.sums")
    made.begin("pre.1")
    made.train("pre.1", 5, 0.5)
    return made


def changed(path: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a line of JSON."""
    lines = path.read_text().splitlines()
    lines[number] = json.dumps(change(json.loads(lines[number])))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("command", [("status",), ("diff", "again"), ("clean", "--json")])
@pytest.mark.parametrize(
    "change",
    [
        lambda row: 5,
        lambda row: row | {"time": None},
        lambda row: row | {"key": "../../elsewhere"},
        lambda row: row | {"event": "rollback", "detail": {"step": "x"}},
        lambda row: row | {"detail": []},
        lambda row: row | {"detail": {"plan": ["x"]}},
    ],
)
def test_a_damaged_journal_is_named_with_its_line(
    change: Callable[[dict[str, Any]], Any],
    command: tuple[str, ...],
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed(folder.path / "journal.jsonl", 1, change)
    words = [str(folder.path) if word == "again" else word for word in command]
    assert main([*words, str(folder.path)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "error: " in said
    assert "journal.jsonl:2 is not a line of" in said.replace("journal.jsonl: ", "journal.jsonl:")
    assert "sed -i.old 2d" in said


@pytest.mark.parametrize(
    "change",
    [
        lambda step: 5,
        lambda step: step | {"loss": [1]},
        lambda step: step | {"mixture": {"sums": "all"}},
        lambda step: {name: step[name] for name in step if name != "step"},
    ],
)
def test_figures_that_are_none_are_left_out(
    change: Callable[[dict[str, Any]], Any], folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder.path / "metrics" / "pre.1.jsonl", 4, change)
    outcome = outcomes(folder.plan, folder.store)["pre.1"]
    assert [line["step"] for line in steps(folder.store, "pre.1", outcome)] == [0, 1, 2, 3]
    assert main(["status", str(folder.path)]) == 0
    assert "bug" not in capsys.readouterr().err
