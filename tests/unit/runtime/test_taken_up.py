"""A job that one run has begun and another one ends has all its steps in both."""

import json
from pathlib import Path
from typing import Any

import pytest

from etude.cli.main import main
from etude.runtime.run_folder.recorder import STEPS, Recorder
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import begun, variant_folder


def _store(folder: Path) -> Store:
    store = Store(folder)
    store.create()
    return store


def _event(step: int) -> dict[str, Any]:
    return {"event": "step", "job": "only.1", "stage": "only", "step": step, "loss": 1.0}


def test_steps_before_the_checkpoint_are_those_of_whoever_began(tmp_path: Path) -> None:
    home = _store(tmp_path / "two")
    hot = _store(variant_folder(home.folder, "hot"))
    assert begun(hot.folder, "k") is None
    home.record("first.1", "k", "started")
    first = Recorder(home.folder)
    for step in range(4):
        first.step(_event(step) | {"job": "first.1", "stage": "first"})
    first.close()
    with (home.folder / "metrics" / "first.1.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the crash
    steps = begun(hot.folder, "k")
    assert steps
    assert steps == home.folder / "metrics" / "first.1.jsonl"
    other = Recorder(hot.folder)
    other.take_up("only.1", "only", steps)
    for step in (3, 4):  # the checkpoint is that after three steps
        other.step(_event(step))
    other.hand_over("only.1", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / STEPS.kept).read_text().splitlines()]
    assert [(line["job"], line["step"]) for line in lines] == [("only.1", n) for n in range(5)]


def test_a_result_without_recorded_steps_is_published_all_the_same(tmp_path: Path) -> None:
    store = _store(tmp_path / "two")
    Recorder(store.folder).hand_over("only.1", tmp_path)
    assert not (tmp_path / STEPS.kept).exists()


def test_where_only_variants_were_run_they_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = _store(variant_folder(tmp_path / "two", "hot")).folder
    assert main(["status", str(tmp_path / "two")]) == 1
    assert f"name one of them: {own}" in capsys.readouterr().err
