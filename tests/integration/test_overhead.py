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
    starts = [{"command, plan and preflight": 1.0, "tokenizer": 2.0}]
    shown = overhead.table(told, {1: [0.5], 2: [0.7, 0.9]}, starts, 2, 1)
    assert "| between two jobs on 2 ranks, s | 0.8 | < 1 |" in shown
    assert "| from the command to the first step, s | 3 | < 15 |" in shown
