"""Checkpoints of a run folder in a store: written, cut off, damaged, read where they are needed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from engine_jobs import Trainer, rolling, run, same, spoiled
from stores import Server, server
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from etude.runtime.engine.checkpoints.checksums import Writer, damage
from etude.runtime.engine.checkpoints.lazy_reader import CheckpointReader
from etude.runtime.engine.checkpoints.stored import take_named, take_stored
from etude.runtime.engine.updates.rollbacks import Rollback
from etude.runtime.errors import Interrupted
from etude.runtime.run_folder.saved import steps_saved
from etude.runtime.stores import remote as remote_module
from etude.runtime.stores.objects import PATIENCE
from etude.runtime.stores.places import CACHE, working
from etude.runtime.stores.remote import remote_above


@pytest.fixture(scope="module")
def module_store() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def store(module_store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """An empty bucket, and an environment in which etude finds it."""
    for name, value in module_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setenv(PATIENCE, "0")
    # s3fs remembers the endpoint of another test's server.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    module_store.empty()
    module_store.client().create_bucket(Bucket="bucket")
    return module_store


def work() -> Path:
    """The work folder of a job in the local folder, as a new process sees it."""
    remote_module._known.clear()
    return working("s3://bucket/run").home / "work" / "k1"


def write(folder: Path, step: int, value: float) -> None:
    state = {"w": torch.full((100,), value)}
    path = folder / "checkpoints" / f"step-{step}"
    save(state, storage_writer=Writer(path), no_dist=True)


def read(path: Path) -> float:
    state = {"w": torch.zeros(100)}
    load(state, storage_reader=CheckpointReader(path), no_dist=True)
    return float(state["w"][0])


def gone(folder: Path) -> Path:
    """The same after the machine has vanished."""
    shutil.rmtree(folder.parents[1])
    again = work()
    take_stored(again)
    return again


def test_a_checkpoint_is_found_and_fetched_by_another_machine(store: Server) -> None:
    write(work(), 3, 1.5)
    again = gone(work())
    saved = again / "checkpoints" / "step-3"
    assert steps_saved(again / "checkpoints") == [3]
    assert not list(saved.glob("*.distcp")), "fetched before anybody reads it"
    assert damage(saved) == ""
    assert read(saved) == 1.5


def on_machine(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of the job on a machine with a local folder of its own."""
    monkeypatch.setenv(CACHE, str(folder / name))
    again = work()
    take_stored(again)
    return again


def test_a_step_that_another_machine_has_written_again_is_read_as_it_wrote_it(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = on_machine("one", tmp_path, monkeypatch)
    write(here, 3, 1.5)
    write(here, 6, 1.5)
    there = on_machine("two", tmp_path, monkeypatch)
    remote = remote_above(there)
    assert remote
    remote.remove_later("work/k1/checkpoints/step-6/")
    remote.settle()
    write(there, 6, 2.5)
    back = on_machine("one", tmp_path, monkeypatch) / "checkpoints"
    assert steps_saved(back) == [3, 6]
    assert damage(back / "step-6") == ""
    assert read(back / "step-6") == 2.5
    assert read(back / "step-3") == 1.5


def test_a_shard_of_another_start_is_not_taken_for_one_of_this_checkpoint(
    store: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a machine whose rank wrote its shards, when another was killed before it had."""
    here = on_machine("one", tmp_path, monkeypatch)
    write(here, 6, 1.5)
    saved = here / "checkpoints" / "step-6"
    left = {path.name: path.read_bytes() for path in saved.glob("*.distcp")}
    for name in (".metadata", "checksums.json"):
        (saved / name).unlink()
        key = f"run/work/k1/checkpoints/step-6/{name}"
        store.client().delete_object(Bucket="bucket", Key=key)
    write(on_machine("two", tmp_path, monkeypatch), 6, 2.5)
    back = on_machine("one", tmp_path, monkeypatch) / "checkpoints" / "step-6"
    take_named(back)
    assert not left.keys() & {path.name for path in back.iterdir()}, "what was left takes no space"
    assert read(back) == 2.5
    # A rank that was thought lost sends its shards now.
    store.put({f"run/work/k1/checkpoints/step-6/{name}": text for name, text in left.items()})
    late = on_machine("three", tmp_path, monkeypatch) / "checkpoints" / "step-6"
    assert damage(late) == ""
    assert read(late) == 2.5


def test_a_file_that_is_damaged_here_alone_is_fetched_again(store: Server) -> None:
    folder = work()
    write(folder, 3, 1.5)
    (shard,) = (folder / "checkpoints" / "step-3").glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert damage(shard.parent) == ""
    assert read(shard.parent) == 1.5


def test_a_checkpoint_whose_upload_was_cut_off_is_none(store: Server) -> None:
    write(work(), 3, 1.5)
    write(work(), 6, 2.5)
    client = store.client()
    client.delete_object(Bucket="bucket", Key="run/work/k1/checkpoints/step-6/checksums.json")
    assert steps_saved(gone(work()) / "checkpoints") == [3]


@pytest.mark.parametrize("how", ["cut off", "changed"])
def test_a_damaged_object_is_damage(store: Server, how: str) -> None:
    write(work(), 3, 1.5)
    (name,) = [n for n in store.names("run/work/") if n.endswith(".distcp")]
    content = store.read(name)
    store.put({name: content[:-100] if how == "cut off" else content[:-1] + b"?"})
    saved = gone(work()) / "checkpoints" / "step-3"
    shard = name.rpartition("/")[2]
    assert damage(saved) == f"{shard} in the store is not what was written"


def test_where_the_store_is_gone_the_checkpoint_is_complete_here(store: Server) -> None:
    folder = work()
    write(folder, 3, 1.5)
    store.empty()
    with pytest.raises(CheckpointException) as problem:
        write(folder, 6, 2.5)
    ((seen, _),) = problem.value.failures.values()
    assert isinstance(seen, Interrupted)
    assert "there is no bucket `bucket`" in seen.message
    assert steps_saved(folder / "checkpoints") == [3, 6]
    assert read(folder / "checkpoints" / "step-6") == 2.5
    store.client().create_bucket(Bucket="bucket")


def test_what_a_job_writes_into_its_result_belongs_to_the_artifact(store: Server) -> None:
    folder = work()
    state = {"w": torch.zeros(10)}
    path = folder / "result.partial" / "state"
    save(state, storage_writer=Writer(path), no_dist=True)
    names = store.names("run/")
    (shard,) = [n.rpartition("/")[2] for n in names if n.startswith("run/artifacts/k1/state/__0_")]
    sums = json.loads(store.read("run/artifacts/k1/state/checksums.json"))
    assert set(sums["files"]) == {shard, ".metadata"}


def test_a_rollback_removes_the_checkpoints_after_it_from_the_store(
    store: Server,
    inputs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Killed when they are gone and the rollback is told, another machine goes on from there."""
    job, told = rolling(), []
    monkeypatch.setattr(Trainer, "forward_backward_step", spoiled(job, (20,)))
    run(job, inputs, tmp_path / "undisturbed")

    def die(event: dict[str, Any]) -> None:
        if event["event"] == "rollback":
            told.append(Rollback.of(event))
            raise KeyboardInterrupt

    here = on_machine("one", tmp_path, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run(job, inputs, here, root=here.parents[1], on_event=die)
    assert [(back.step, back.to) for back in told] == [(20, 15)]
    kept = {name.split("/")[4] for name in store.names("run/work/k1/checkpoints/")}
    assert kept == {"step-10", "step-15"}
    there = on_machine("two", tmp_path, monkeypatch)
    events = run(job, inputs, there, root=there.parents[1], rollbacks=told)
    assert [event["step"] for event in events] == [*range(15, 24)]
    assert same(there / "result" / "state", tmp_path / "undisturbed" / "result" / "state")
