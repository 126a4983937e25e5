"""On what a job ran, as its manifest has it."""

import json
from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, jobs, plan, stage

from etude.runtime.run_folder import ran
from etude.runtime.run_folder.saved import SUMS
from etude.runtime.run_folder.store import Store

JOB = HEAD + stage(parallel="{ micro_batch 1 }")


def on(ranks: int) -> Any:
    (job,) = jobs(plan(JOB, ranks))
    return job


def saved(work: Path, step: int) -> None:
    folder = work / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / SUMS).touch()


def test_each_start_on_other_ranks_is_kept_from_its_step_on(tmp_path: Path) -> None:
    ran.begin(tmp_path, on(2))
    saved(tmp_path, 5)
    ran.begin(tmp_path, on(2))  # the same again
    saved(tmp_path, 10)
    ran.begin(tmp_path, on(1))
    found = ran.starts(tmp_path)
    assert [(each["ranks"], each["from_step"]) for each in found] == [(2, 0), (1, 10)]
    assert [each["layout"] for each in found] == [{"shard": 2}, {}]
    assert [ran.in_words(each) for each in found] == ["2 ranks, shard 2", "1 rank"]
    assert found[0]["device"] == "cpu"
    assert {"python", "etude", "torch", "torchtitan"} <= found[0]["versions"].keys()


def test_a_start_that_left_no_checkpoint_is_forgotten(tmp_path: Path) -> None:
    ran.begin(tmp_path, on(2))
    ran.begin(tmp_path, on(1))
    (only,) = ran.starts(tmp_path)
    assert (only["ranks"], only["from_step"]) == (1, 0)
    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)  # never finished
    ran.begin(tmp_path, on(2))
    assert [each["ranks"] for each in ran.starts(tmp_path)] == [2]


def test_hosts_are_counted_by_what_the_launcher_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    ran.begin(tmp_path, on(2))
    assert ran.starts(tmp_path)[0]["hosts"] == 2


def test_a_file_that_was_cut_off_is_no_start(tmp_path: Path) -> None:
    (tmp_path / ran.RAN).write_text('[{"ranks": 2')
    ran.begin(tmp_path, on(1))
    assert [each["ranks"] for each in ran.starts(tmp_path)] == [1]


def test_a_manifest_says_on_what_the_artifact_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    work = store.work("abc")
    (work / "result").mkdir(parents=True)
    (work / "result" / "file").write_text("content")
    ran.begin(work, on(2))
    folder = store.publish("abc", work / "result", "first.1")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert [each["ranks"] for each in manifest["ran"]] == [2]
    assert store.artifact("abc") == folder
