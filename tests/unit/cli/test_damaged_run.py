"""Run folders of which a file is damaged: commands that read them say so, or leave it out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reported_runs import Run
from run_folders import Folder

from etude.cli.main import main
from etude.runtime.errors import RunError
from etude.runtime.reporting.stretches import stretches
from etude.runtime.run_folder.outcomes import outcomes, steps
from etude.runtime.run_folder.progress import progress
from etude.runtime.run_folder.recorder import Recorder

UNKNOWN = dict.fromkeys(("tokens_per_second", "tokens", "seconds", "data_seconds", "seq_len"))


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
        lambda row: row | {"time": float("inf")},
        lambda row: row | {"key": "x" * 5000},
        lambda row: row | {"key": "a\0b"},
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
        lambda step: step | {"job": {"a": 1}},
        lambda step: step | {"loss": None},
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


@pytest.mark.parametrize("time", [float("inf"), -1, "../../etc/passwd", [1], None])
def test_events_without_a_moment_are_left_out(
    time: Any, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder.path / "events.jsonl"
    with file.open("a") as events:
        events.write(json.dumps({"event": "warning", "message": "m", "time": time}) + "\n")
    assert [each.job for each in stretches(file)] == []
    found = progress(folder.plan, folder.store)
    assert 0 < (found.heard or 0) < 1e12
    assert main(["report", str(folder.path)]) == 0
    assert "bug" not in capsys.readouterr().err


def test_steps_without_a_speed_are_shown_without_one(folder: Folder) -> None:
    changed(folder.path / "metrics" / "pre.1.jsonl", 4, lambda step: step | UNKNOWN)
    training = progress(folder.plan, folder.store).training
    assert training
    assert (training.step, training.tokens_per_second) == (5, 4 * 64 / 0.5)
    assert main(["report", str(folder.path)]) == 0


@pytest.mark.parametrize("kind", ["metrics/pre.1.jsonl", "events.jsonl"])
def test_what_is_nested_deeper_than_python_reads_is_damage(kind: str, folder: Folder) -> None:
    with (folder.path / kind).open("a") as file:
        file.write("[" * 100_000 + "\n")
    outcome = outcomes(folder.plan, folder.store)["pre.1"]
    assert len(steps(folder.store, "pre.1", outcome)) == 5
    assert main(["status", str(folder.path)]) == 0


@pytest.mark.parametrize(
    ("job", "file", "content"),
    [
        ("align.1.after", "scores.json", {"loss(docs)": {"other": 1}}),
        ("align.1.after", "scores.json", {"loss(docs)": {"score": "x"}}),
        ("pick", "verdict.json", {"scores": [{"stage": "pretrain"}], "index": 0, "measure": "m"}),
    ],
)
def test_a_result_without_scores_is_named(
    job: str,
    file: str,
    content: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(tmp_path / "run")
    run.finish(job, {file: content})
    assert main(["report", str(run.folder)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"the result of `{job}` in" in said
    assert "the next run rebuilds it" in said


@pytest.mark.parametrize(
    "line", [b"5", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"step": "x"}', b"{"]
)
def test_a_run_that_goes_on_drops_figures_from_a_damaged_line_on(
    line: bytes, folder: Folder
) -> None:
    file = folder.path / "metrics" / "pre.1.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    recorder = Recorder(folder.path)
    recorder.take_up("pre.1", "pre", file)
    again = json.loads(lines[4]) | {"stage": "pre", "tokens": 1}
    recorder.step(again)
    recorder.close()
    kept = [json.loads(each)["step"] for each in file.read_text().splitlines()]
    assert kept == [0, 1, 4]


def test_a_manifest_nested_deeper_than_python_reads_is_damage(folder: Folder) -> None:
    key = folder.job("dataset.sums").key
    (folder.path / "artifacts" / key / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="its manifest cannot be read"):
        folder.store.verify(key, shards=True)
    assert not folder.store.is_spent(key)
