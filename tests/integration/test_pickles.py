"""Checkpoints that hold programs: they are refused, and nothing of them runs."""

import json
import os
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import fuzz_files
import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from etude.runtime.engine.checkpoints.checksums import Writer, damage
from etude.runtime.engine.checkpoints.lazy_reader import CheckpointReader, PlainPlanner
from etude.runtime.engine.checkpoints.storage import model_tensors, reading
from etude.runtime.errors import RunError


class Evil:
    """What a pickle makes by calling a function: here, a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def checkpoint(path: Path) -> dict[str, Any]:
    """Writes a checkpoint; returns a state to load it into."""
    state = {"w": torch.arange(4.0), "more": {"steps": 7, "name": "x", "list": [1, None, True]}}
    save(state, storage_writer=Writer(path), no_dist=True)
    return {"w": torch.zeros(4), "more": {"steps": 0, "name": "", "list": []}}


def test_what_checkpoints_hold_is_read(tmp_path: Path) -> None:
    state = checkpoint(tmp_path / "c")
    load(
        state, storage_reader=CheckpointReader(tmp_path / "c"), planner=PlainPlanner(), no_dist=True
    )
    assert state["w"].tolist() == [0, 1, 2, 3]
    assert state["more"] == {"steps": 7, "name": "x", "list": [1, None, True]}


def test_a_program_in_the_metadata_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "c"
    checkpoint(path)
    content = pickle.dumps(Evil(tmp_path / "made"))
    (path / ".metadata").write_bytes(content)
    # Whoever puts it there can also write its checksum.
    sums = json.loads((path / "checksums.json").read_text())
    sums["files"][".metadata"] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    (path / "checksums.json").write_text(json.dumps(sums))
    assert "mkdir, which no checkpoint has" in damage(path)
    with (
        pytest.raises(RunError, match=r"mkdir, which no checkpoint has"),
        reading(path, "remove it"),
    ):
        model_tensors(path)
    assert not (tmp_path / "made").exists()


def test_a_program_in_place_of_a_number_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "c"
    state = {"w": torch.arange(4.0), "more": {"steps": Evil(tmp_path / "made")}}
    save(state, storage_writer=FileSystemWriter(path), no_dist=True)
    wanted = {"w": torch.zeros(4), "more": {"steps": 0}}
    with pytest.raises((pickle.UnpicklingError, CheckpointException), match=r"Unsupported|mkdir"):
        load(wanted, storage_reader=CheckpointReader(path), planner=PlainPlanner(), no_dist=True)
    assert not (tmp_path / "made").exists()


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    kinds = fuzz_files.runs()
    assert sorted(kinds)[0] == "a checkpoint"
    seeds = range(0, 60 * len(kinds), len(kinds))
    problems = [fuzz_files.tried("runs", seed, tmp_path / "input") for seed in seeds]
    assert [problem for problem in problems if problem] == []
