"""The benchmark of what a run costs beside its training runs, and says what it measured."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from engine_jobs import prepare

prepare("cpu")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def overhead(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.overhead")


def test_recording_and_checksums_are_measured(overhead: Any, tmp_path: Path) -> None:
    told = overhead.recording(tmp_path, 2, layers=1, dim=32, seq_len=16)
    assert told["with"] > 0
    assert told["saving"] > 0
    assert told["MiB"] > 0
    assert (tmp_path / "run" / "tensorboard" / "pre").is_dir()
    starts = [({"command, plan and preflight": 1.0, "tokenizer": 2.0}, 2.5)]
    shown = overhead.table(told, {1: [0.5], 2: [0.7, 0.9]}, starts, 2, 1)
    assert "| between two jobs on 2 ranks, s | 0.8 | < 1 |" in shown
    assert "| from the command to the first step, s | 3 | < 15 |" in shown
    assert "| the same in seconds of processors | 2.5 |  |" in shown


def test_steps_are_recorded_in_turn_and_trackers_compared_with_none(overhead: Any) -> None:
    seen: list[tuple[str, int]] = []
    turn = overhead._InTurn(
        {name: lambda event, name=name: seen.append((name, event["step"])) for name in ("a", "b")}
    )
    for step in range(2 * overhead.WARM + 4):
        turn({"step": step})
    assert seen[:3] == [("a", 0), ("b", 1), ("a", 2)]
    assert {name: len(of) for name, of in turn.seconds.items()} == {"a": 2, "b": 2}
    assert {name: len(of) for name, of in turn.own.items()} == {"a": 2, "b": 2}
    told = {"nothing": {"step": 0.1}, "MLflow": {"step": 0.101, "own": 0.001, "processor": 0.002}}
    assert "| MLflow | 101.0 | 1.00 | 1.00 | 2.00 |" in overhead.trackers_table(told, 2)


@pytest.mark.exhaustive
def test_every_tracker_is_measured(
    overhead: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    told = overhead.tracking(tmp_path / "runs", 1, layers=1, dim=32, seq_len=16)
    assert told.keys() == {"nothing", "the journal and metrics alone", *overhead.TRACKERS}
    assert all(of["processor"] > 0 for name, of in told.items() if name != "nothing")
