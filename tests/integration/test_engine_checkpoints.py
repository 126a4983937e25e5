"""Checkpoints inside a job: when they come, which stay, and what happens to those that are damaged
or were cut off."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_jobs import Events, run, same, train_job

from etude.compiler.plan.checkpoints import FOR_ROLLBACKS
from etude.compiler.values import Saving
from etude.runtime import stopping
from etude.runtime.engine.checkpoints.checkpoint import Policy
from etude.runtime.engine.checkpoints.checksums import SUMS, damage
from etude.runtime.errors import Interrupted

RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
STEPS = 8
SHARD = "__0_0.distcp"
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_jobs import run, train_job
from etude.runtime.engine.checkpoints.checksums import Writer

finish = Writer.finish


def cut_off(self, metadata, results):
    if self.path.name == sys.argv[4]:
        if sys.argv[5] == "late":
            super(Writer, self).finish(metadata, results)
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, metadata, results)


Writer.finish = cut_off
inputs = {f"data:{name}": Path(sys.argv[2]) / name for name in ("web", "code")}
run(train_job(steps=8, checkpoint_every=2), inputs, Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a job that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run(train_job(steps=STEPS, checkpoint_every=2), inputs, folder)
    return folder / "result" / "state"


class Enough(Exception):
    """Ends a job in the middle."""


def broken_off(inputs: dict[str, Path], folder: Path, **given: Any) -> Path:
    """The folder of the checkpoints of a job that ended by itself before its step 7."""

    def end(event: dict[str, Any]) -> None:
        if event["step"] == 6:
            raise Enough

    with pytest.raises(Enough):
        run(
            train_job(steps=STEPS, **{"checkpoint_every": 2, **given}), inputs, folder, on_event=end
        )
    return folder / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def unlist(path: Path, name: str) -> None:
    """Takes a file's checksum away."""
    sums = json.loads((path / SUMS).read_bytes())
    del sums["files"][name]
    (path / SUMS).write_text(json.dumps(sums))


def flip(path: Path, at: int) -> None:
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def split(events: Events) -> tuple[list[str], list[int]]:
    """What a job warns of, and the steps that it took."""
    warned = [event["message"] for event in events if event["event"] == "warning"]
    return warned, [event["step"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: flip(path / SHARD, 5000), f"{SHARD} is not what was written"),
        (lambda path: flip(path / SHARD, -1), f"{SHARD} is not what was written"),
        (lambda path: flip(path / ".metadata", 100), ".metadata is not what was written"),
        (lambda path: os.truncate(path / SHARD, 1000), f"{SHARD} has 1,000 bytes, not"),
        (lambda path: (path / SHARD).unlink(), f"{SHARD}: no such file"),
        (lambda path: (path / SUMS).write_text("{}"), f"{SUMS} cannot be read"),
        (lambda path: unlist(path, SHARD), f"{SUMS} does not list {SHARD}"),
        (lambda path: unlist(path, ".metadata"), f"{SUMS} does not list .metadata"),
    ],
)
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_is_taken(
    harm: Callable[[Path], None], said: str, whole: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    folder = broken_off(inputs, tmp_path)
    assert names(folder)[-2:] == ["step-4", "step-6"]
    assert damage(folder / "step-6") == ""
    harm(folder / "step-6")
    ((warned,), steps) = split(run(train_job(steps=STEPS, checkpoint_every=2), inputs, tmp_path))
    assert f"{folder / 'step-6'} is damaged: {said}" in warned
    assert warned.endswith("going from step 4 of the job")
    assert steps == [4, 5, 6, 7]
    assert same(tmp_path / "result" / "state", whole)


def test_where_all_are_damaged_the_job_begins_anew(
    whole: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    folder = broken_off(inputs, tmp_path)
    for name in names(folder):
        flip(folder / name / SHARD, 3000)
    warned, steps = split(run(train_job(steps=STEPS, checkpoint_every=2), inputs, tmp_path))
    assert [message.rpartition("; ")[2] for message in warned] == [
        "going from step 4 of the job",
        "going from step 2 of the job",
        "going from the job's beginning",
    ]
    assert steps == list(range(STEPS))
    assert same(tmp_path / "result" / "state", whole)


@pytest.mark.parametrize("when", ["early", "late"])
def test_killed_while_a_checkpoint_is_written_the_job_takes_the_one_before(
    when: str, whole: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Before anything says what the files hold, and when only the checksums were missing."""
    data = inputs["data:web"].parent
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(data), str(tmp_path)]
    alone = {name: value for name, value in os.environ.items() if name not in RANK}
    done = subprocess.run([*command, "step-4", when], env={**alone, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path / "checkpoints") == ["step-2", "step-4"]
    assert not (tmp_path / "checkpoints" / "step-4" / SUMS).exists()
    warned, steps = split(run(train_job(steps=STEPS, checkpoint_every=2), inputs, tmp_path))
    assert (warned, steps) == ([], list(range(2, STEPS)))
    assert same(tmp_path / "result" / "state", whole)


def test_training_goes_on_while_a_checkpoint_is_written(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are taken while the writer waits for them."""
    from threading import Event

    from etude.runtime.engine.checkpoints.checksums import Writer

    further, finish = Event(), Writer.finish
    waited: list[bool] = []

    def slow(self: Writer, metadata: Any, results: Any) -> None:
        if Path(self.path).name == "step-2":
            waited.append(further.wait(120))
        finish(self, metadata, results)

    def go_on(event: dict[str, Any]) -> None:
        if event["step"] == 3:
            further.set()

    monkeypatch.setattr(Writer, "finish", slow)
    run(train_job(steps=6, checkpoint_every=2), inputs, tmp_path, on_event=go_on)
    assert waited == [True]


def test_a_request_to_stop_waits_until_the_checkpoint_is_whole(
    whole: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    job = train_job(steps=STEPS, checkpoint_every=2)

    def ask(event: dict[str, Any]) -> None:
        if event["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with stopping.listening(), pytest.raises(Interrupted, match="saved after step 5 of 8"):
        run(job, inputs, tmp_path, on_event=ask)
    assert damage(tmp_path / "checkpoints" / "step-5") == ""
    assert split(run(job, inputs, tmp_path))[1] == [5, 6, 7]
    assert same(tmp_path / "result" / "state", whole)


def test_checkpoints_come_by_the_clock(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.runtime.engine.checkpoints import checkpoint

    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def pass_time(event: dict[str, Any]) -> None:
        now[0] += 25.0

    seen = broken_off_by(inputs, tmp_path, Saving(every=None, seconds=60.0, last=None), pass_time)
    assert seen == ["step-3", "step-6"]


def broken_off_by(
    inputs: dict[str, Path], folder: Path, saving: Saving, on_event: Callable[[Any], None]
) -> list[str]:
    """The names of the checkpoints that are in the result of a job of eight steps."""
    run(train_job(steps=STEPS, saving=saving), inputs, folder, on_event=on_event)
    kept = folder / "result" / "checkpoints"
    return names(kept) if kept.is_dir() else []


@pytest.mark.parametrize(
    ("saving", "stay"),
    [
        (Saving(every=2, seconds=None, last=1), []),
        (Saving(every=4, seconds=None, last=None), ["step-4"]),
        (Saving(every=5, seconds=None, last=1, marks=3), ["step-3", "step-6"]),
    ],
)
def test_checkpoints_that_stay_are_a_part_of_the_result(
    saving: Saving, stay: list[str], whole: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    assert broken_off_by(inputs, tmp_path, saving, lambda event: None) == stay
    assert same(tmp_path / "result" / "state", whole)
    for name in stay:
        assert damage(tmp_path / "result" / "checkpoints" / name) == ""


def test_the_newest_stay_while_a_job_runs(inputs: dict[str, Path], tmp_path: Path) -> None:
    saving = Saving(every=1, seconds=None, last=3)
    folder = broken_off(inputs, tmp_path, saving=saving)
    assert [name for name in names(folder) if (folder / name / SUMS).exists()][-3:] == [
        "step-4",
        "step-5",
        "step-6",
    ]


@pytest.mark.parametrize(
    ("saving", "steps", "stale"),
    [
        (Saving(every=1, seconds=None), [1, 2, 3, 4], [1, 2]),
        (Saving(every=1, seconds=None, last=1), [1, 2, 3, 4], [1, 2, 3]),
        (Saving(every=1, seconds=None, last=None), [1, 2, 3, 4], []),
        (Saving(every=1, seconds=None, last=1, marks=2), [1, 2, 3, 4], [2]),
        (Saving(every=1, seconds=None), [7], []),
    ],
)
def test_which_are_stale(saving: Saving, steps: list[int], stale: list[int]) -> None:
    """Marks are steps of the stage, with 101 before the job."""
    assert Policy(saving, 101).stale(steps) == stale


def test_the_sums_are_those_of_the_files(whole: Path) -> None:
    found = json.loads((whole / SUMS).read_text())["files"]
    assert set(found) == {SHARD, ".metadata"}
    assert damage(whole, 0, 2) == damage(whole, 1, 2) == ""


def test_rollbacks_keep_the_last_three_and_the_last_two_of_every_tenth() -> None:
    policy = Policy(Saving(every=None, seconds=1200.0, last=1), back=10)
    held: list[int] = []
    for step in [n for n in range(1, 1000) if policy.is_due(n, 0.0)]:
        held.append(step)
        for stale in policy.stale(held):
            held.remove(stale)
        assert policy.before(step) in [0, *held]
        assert max(step - 20, 0) in [0, *held]
        assert len(held) <= 1 + FOR_ROLLBACKS
    assert held == [800, 900, 970, 980, 990]
