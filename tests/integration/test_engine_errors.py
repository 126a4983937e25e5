"""What goes wrong on the user's disk or in the plan ends in one message, and loses nothing."""

import json
import math
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import Events, architecture, interrupted, lr, run, same, train_job
from torch.distributed.checkpoint.filesystem import FileSystem

from etude.compiler.plan.plan import Averaging
from etude.runtime.engine.checkpoints.checkpoint import Checkpoints
from etude.runtime.errors import DataError, RunError, Stopped
from etude.spec.record import replace


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Forbids files of more than so many bytes, with which a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def model(inputs: dict[str, Path], tmp_path: Path) -> Path:
    """The result of a short job."""
    run(train_job(steps=1), inputs, tmp_path / "model")
    return tmp_path / "model" / "result"


def test_a_full_disk_stops_the_job_and_leaves_its_checkpoints(
    inputs: dict[str, Path], tmp_path: Path, limit_files: Callable[[int], None]
) -> None:
    job, folder = train_job(steps=12), tmp_path / "job"
    run(job, inputs, tmp_path / "undisturbed")

    def fill_disk(event: dict[str, Any]) -> None:
        if event["step"] == 6:
            limit_files(100_000)

    with pytest.raises(Stopped) as stopped:
        run(job, inputs, folder, on_event=fill_disk)
    assert f"{folder}/checkpoints/step-10 cannot be written" in str(stopped.value)
    assert "from step 5" in stopped.value.help
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-5"]

    limit_files(resource.RLIM_INFINITY)
    events = run(job, inputs, folder)
    assert [event["step"] for event in events] == list(range(5, 12))
    assert same(folder / "result" / "state", tmp_path / "undisturbed" / "result" / "state")


@pytest.mark.parametrize("part", [".metadata", "__0_0.distcp"])
def test_a_disk_without_room_left_stops_the_job(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whatever of the result is the first that does not fit."""
    create_stream = FileSystem.create_stream

    def no_room(self: FileSystem, path: Path, mode: str) -> Any:
        if mode == "wb" and "result" in str(path) and part in path.name:
            raise OSError(28, os.strerror(28))
        return create_stream(self, path, mode)

    folder = tmp_path / "job"
    with monkeypatch.context() as patch:
        patch.setattr(FileSystem, "create_stream", no_room)
        with pytest.raises(Stopped, match=r"the disk is full .it needs about"):
            run(train_job(steps=6), inputs, folder)
    assert not (folder / "result").exists()
    assert [event["step"] for event in run(train_job(steps=6), inputs, folder)] == [5]
    assert (folder / "result" / "state" / ".metadata").is_file()


def test_a_place_that_cannot_be_written_stops_the_job(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "job").write_text("a file where the job's folder should be")
    with pytest.raises(Stopped, match=f"{tmp_path / 'job'} cannot be used: file exists"):
        run(train_job(steps=1), inputs, tmp_path / "job")


def test_a_loss_that_is_not_finite_stops_the_job_at_its_step(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    job = train_job(
        first_step=40, steps=12, schedule_lr=[lr(40, 52, "hold", 1e30, 1e30)], checkpoint_every=1
    )
    events: Events = []
    with pytest.raises(Stopped, match=r"not finite at step 41 of stage `toy`"):
        run(job, inputs, tmp_path / "job", on_event=events.append)
    assert [event["step"] for event in events] == [40]
    assert all(math.isfinite(event["loss"]) for event in events)
    assert [path.name for path in (tmp_path / "job" / "checkpoints").iterdir()] == ["step-1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: (state / ".metadata").unlink(), ".metadata: no such file"),
        (
            lambda state: (state / ".metadata").write_bytes(b"?"),
            ".metadata has 1 bytes, not",
        ),
        (
            lambda state: os.truncate(state / "__0_0.distcp", 1000),
            "__0_0.distcp has 1,000 bytes, not",
        ),
        (
            lambda state: (state / "checksums.json").write_text("?"),
            "checksums.json cannot be read",
        ),
        (lambda state: (state / "__0_0.distcp").unlink(), "__0_0.distcp: no such file"),
    ],
)
def test_a_damaged_input_is_named(
    model: Path, inputs: dict[str, Path], tmp_path: Path, damage: Any, message: str
) -> None:
    damage(model / "state")
    job = train_job(steps=1, optimizer_state="carry")
    with pytest.raises(RunError) as error:
        run(job, {**inputs, "model": model}, tmp_path / "job")
    assert f"the checkpoint {model / 'state'} is damaged: {message}" in str(error.value)


def test_an_input_of_another_shape_is_named(
    model: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    job = train_job(steps=1, model=architecture(ffn=96))
    with pytest.raises(RunError, match=f"{model / 'state'} cannot be read"):
        run(job, {**inputs, "model": model}, tmp_path / "job")


def test_an_input_without_a_mean_cannot_go_on_averaging(
    model: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    averaging = Averaging(every=1, from_step=0)
    job = train_job(first_step=1, steps=1, average=averaging, optimizer_state="carry")
    with pytest.raises(RunError, match=r"cannot be read: .*average"):
        run(job, {**inputs, "model": model}, tmp_path / "job")


def test_a_checkpoint_of_the_job_itself_that_cannot_be_read_is_named(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is damaged gives way to the one before it: see test_engine_checkpoints.py."""
    folder = tmp_path / "job"
    interrupted(train_job(steps=12), inputs, folder, lost=6)
    checkpoint = folder / "checkpoints" / "step-5"

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("of another shape")

    monkeypatch.setattr(Checkpoints, "dcp_load", refuse)
    with pytest.raises(RunError, match=f"{checkpoint} cannot be read: of another") as error:
        run(train_job(steps=12), inputs, folder)
    assert error.value.help.startswith(f"remove {checkpoint}")

    # Where other ranks wrote it, they may read what these cannot.
    starts = [{"ranks": 2, "layout": {"tensor": 2}, "from_step": 0}]
    starts.append({"ranks": 1, "layout": {}, "from_step": 5})
    (folder / "ran.json").write_text(json.dumps(starts))
    with pytest.raises(RunError, match=f"{checkpoint} cannot be read") as error:
        run(train_job(steps=12), inputs, folder)
    assert error.value.help.startswith(
        "it was written on 2 ranks, tensor 2, and this run has 1 rank: run there again"
    )
    assert checkpoint.is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torchtitan": {"traning": {}}}, "torchtitan has no section `traning`"),
        ({"torchtitan": {"debug": {"sed": 1}}}, "torchtitan has no field `debug.sed`"),
        ({"torchtitan": {"optimizer": {"param_groups": [{"x": 1}]}}}, "no field `optimizer.x`"),
        ({"torchtitan": {"activation_checkpoint": {"mode": "half"}}}, "mode `half`"),
        ({"torchtitan": {"parallelism": {"spmd_backend": "?"}}}, "spmd_backend must be one of"),
        (
            {"torchtitan": {"parallelism": {"tensor_parallel_degree": 2}}},
            "rejects the job toy: assert dp_shard >= 1",
        ),
        ({"batch": 5}, "batch of 5 sequences from step 0 on cannot be divided"),
        ({"world_size": 2}, "needs 2 ranks, but there are 1"),
        ({"model": architecture(family="llama9")}, "no model family `llama9`"),
        ({"mixture": [(0, {"books": 1})]}, "no input `data:books`"),
    ],
)
def test_a_plan_that_cannot_be_run_is_explained(
    inputs: dict[str, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError) as error:
        run(train_job(steps=1, **changes), inputs, tmp_path / "job")
    assert message in str(error.value)
    assert error.value.help


def test_a_gpu_that_is_not_there_is_missed(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = train_job(steps=1)
    job = job.model_copy(update={"resources": replace(job.resources, device="H100 80GB")})
    if torch.accelerator.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RunError, match="needs the GPU H100 80GB"):
        run(job, inputs, tmp_path / "job")


def test_tokens_beyond_the_vocabulary_are_found(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = train_job(steps=1, model=architecture(vocab=200))
    with pytest.raises(
        DataError, match=r"has the token 25\d, but the model's vocabulary ends at 199"
    ):
        run(job, inputs, tmp_path / "job")
