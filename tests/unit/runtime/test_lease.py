"""The lease of a run folder: who has it, who gets it, and when."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from etude.runtime.errors import Interrupted, RunError
from etude.runtime.run_folder import lease as module
from etude.runtime.run_folder.homes import owner_of
from etude.runtime.run_folder.lease import INHERITED, LEASE, Lease
from etude.runtime.run_folder.store import Store
from etude.runtime.run_folder.variant_folders import variant_folder


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and patience of tenths of a second."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "DEAD_SECONDS", 2.0)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", INHERITED):
        monkeypatch.delenv(name, raising=False)


def owner(folder: Path) -> dict[str, Any]:
    return json.loads((folder / LEASE).read_bytes())


def held_by(folder: Path, **changes: Any) -> dict[str, Any]:
    """A lease that another process has left."""
    lease = Lease(folder)
    lease.take()
    found = owner(folder)
    lease.release()
    found |= {"token": "another"} | changes
    (folder / LEASE).write_text(json.dumps(found))
    return found


def ended() -> dict[str, Any]:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    started = module._process(process.pid)
    process.wait()
    return started


def test_who_has_it_is_told_to_whoever_wants_it(tmp_path: Path) -> None:
    first = Lease(tmp_path)
    first.take()
    since = owner(tmp_path)["since"]
    with pytest.raises(RunError) as problem:
        Lease(tmp_path).take()
    assert problem.value.exit_code == 1
    assert f"another run is using {tmp_path}: process {os.getpid()}" in problem.value.message
    assert owner(tmp_path)["host"] in problem.value.message
    assert f"since {since}" in problem.value.message
    first.release()
    assert not (tmp_path / LEASE).exists()
    second = Lease(tmp_path)
    second.take()
    second.release()


def test_the_number_in_it_changes(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.take()
    beats = owner(tmp_path)["beats"]
    ticking = threading.Event()
    while owner(tmp_path)["beats"] < beats + 2:
        ticking.wait(0.02)
    lease.release()


def test_that_of_a_process_of_this_host_that_has_ended_is_taken_at_once(tmp_path: Path) -> None:
    held_by(tmp_path, processes=[ended()])
    waited: list[str] = []
    lease = Lease(tmp_path)
    lease.take(waited.append)
    assert not waited
    assert owner(tmp_path)["token"] == lease.token
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_now_is_that_of_a_dead_owner(tmp_path: Path) -> None:
    held_by(tmp_path, processes=[{"pid": os.getpid(), "started": "1"}])
    lease = Lease(tmp_path)
    lease.take()
    lease.release()


def test_it_lasts_as_long_as_one_of_its_processes(tmp_path: Path) -> None:
    held_by(tmp_path, processes=[ended(), module._process(os.getpid())])
    with pytest.raises(RunError, match="another run is using"):
        Lease(tmp_path).take()


def test_processes_of_an_owner_that_has_ended_may_end_a_little_later(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held_by(tmp_path, processes=[ended(), module._process(process.pid)])
    threading.Timer(0.3, process.communicate).start()
    lease = Lease(tmp_path)
    lease.take()
    assert process.poll() is not None
    lease.release()


def test_an_owner_elsewhere_who_stands_still_has_died(tmp_path: Path) -> None:
    held_by(tmp_path, host="node-7", user="ada", slurm_job="12", since="yesterday")
    waited: list[str] = []
    lease = Lease(tmp_path)
    lease.take(waited.append)
    (said,) = waited
    assert "of ada on node-7 in the Slurm job 12, since yesterday; waiting" in said
    assert owner(tmp_path)["token"] == lease.token
    lease.release()


@pytest.mark.parametrize("elsewhere", [{"host": "node-7"}, {"space": ["boot", "container"]}])
def test_an_owner_elsewhere_whose_number_changes_is_alive(
    elsewhere: dict[str, Any], tmp_path: Path
) -> None:
    found = held_by(tmp_path, processes=[ended()], **elsewhere)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            found["beats"] += 1
            (tmp_path / LEASE).write_text(json.dumps(found))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(RunError, match="another run is using"):
            Lease(tmp_path).take()
    finally:
        stop.set()
        beating.join()


def test_that_of_a_slurm_job_before_it_was_requeued_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by(tmp_path, host="node-7", slurm_job="12", slurm_restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    waited: list[str] = []
    lease = Lease(tmp_path)
    lease.take(waited.append)
    assert not waited
    lease.release()


def test_one_that_is_removed_by_hand_comes_back(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.take()
    (tmp_path / LEASE).unlink()
    ticking = threading.Event()
    while not (tmp_path / LEASE).exists():
        ticking.wait(0.02)
    assert owner(tmp_path)["token"] == lease.token
    lease.release()


def test_an_owner_who_has_lost_it_is_told(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.take()
    lease.require()
    found = owner(tmp_path) | {"token": "another", "host": "node-9"}
    (tmp_path / LEASE).write_text(json.dumps(found))
    ticking = threading.Event()
    while lease._lost is None:
        ticking.wait(0.02)
    with pytest.raises(Interrupted, match=r"another run has taken .* on node-9"):
        lease.require()
    lease.release()
    assert owner(tmp_path) == found


def test_a_process_that_works_for_the_owner_leaves_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lease(tmp_path)
    first.take()
    monkeypatch.setenv(INHERITED, first.token)
    worker = Lease(tmp_path)
    worker.take()
    worker.release()
    assert owner(tmp_path)["token"] == first.token
    first.release()


def test_a_file_that_nobody_can_read_is_no_owner_for_long(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text("{")
    lease = Lease(tmp_path)
    lease.take()
    assert lease.mine
    lease.release()


@pytest.mark.parametrize(
    "processes", [None, 5, "x", [5], [None], [{}], [{"pid": "x", "started": "1"}], [{"pid": 1}]]
)
def test_one_that_is_damaged_is_no_owner_for_long(
    processes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "DEAD_SECONDS", 0.1)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    first = Lease(tmp_path)
    first.take()
    there = owner(tmp_path)
    first.release()
    (tmp_path / LEASE).write_text(json.dumps(there | {"processes": processes}))
    assert module.owner(tmp_path) is None
    second = Lease(tmp_path)
    second.take()
    assert owner(tmp_path)["token"] != there["token"]
    second.release()


def test_a_lease_nested_deeper_than_python_reads_is_damaged() -> None:
    assert module.parsed(b'{"processes": ' + b"[" * 100_000) is None


def test_a_successor_that_has_died_before_it_began_is_succeeded(tmp_path: Path) -> None:
    dead = ended()
    first = held_by(tmp_path, processes=[dead])
    died = first | {"token": "successor"}
    (tmp_path / f"{LEASE}.after-{first['token']}").write_text(json.dumps(died))
    lease = Lease(tmp_path)
    lease.take()
    assert owner(tmp_path)["token"] == lease.token
    lease.release()
    assert list(tmp_path.iterdir()) == []


def test_a_successor_that_lives_has_it_in_a_moment(tmp_path: Path) -> None:
    first = held_by(tmp_path, processes=[ended()])
    successor = tmp_path / f"{LEASE}.after-{first['token']}"
    successor.write_text(
        json.dumps(first | {"token": "successor", "processes": [module._process(1)]})
    )
    threading.Timer(0.3, lambda: os.replace(successor, tmp_path / LEASE)).start()
    with pytest.raises(RunError, match="another run is using"):
        Lease(tmp_path).take()


@pytest.mark.parametrize("already", ["nobody", "a dead successor"])
@pytest.mark.parametrize("attempt", range(5))
def test_of_many_who_want_that_of_a_dead_owner_one_gets_it(
    attempt: int, already: str, tmp_path: Path
) -> None:
    dead = held_by(tmp_path, processes=[ended()])
    if already == "a dead successor":
        path = tmp_path / f"{LEASE}.after-{dead['token']}"
        path.write_text(json.dumps(dead | {"token": "successor"}))
    got: list[Lease] = []
    refused: list[RunError] = []
    together = threading.Barrier(8)

    def want() -> None:
        lease = Lease(tmp_path)
        together.wait()
        try:
            lease.take()
            got.append(lease)
        except RunError as problem:
            refused.append(problem)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert owner(tmp_path)["token"] == got[0].token
    got[0].release()
    assert list(tmp_path.iterdir()) == []


def test_a_variant_works_under_the_lease_of_its_recipe(tmp_path: Path) -> None:
    home = Store(tmp_path / "two")
    home.create()
    hot = Store(variant_folder(home.folder, "hot"))
    hot.create()
    with home.lease():
        assert (home.folder / LEASE).exists()
        with pytest.raises(RunError, match="another run is using"), hot.lease():
            pass
    with hot.lease():
        assert (home.folder / LEASE).exists()


def test_parts_of_a_sweep_have_folders_beside_each_other_and_keep_out_the_recipe(
    tmp_path: Path,
) -> None:
    one, two = (Store(variant_folder(tmp_path, name)) for name in ("one", "two"))
    recipe = Store(tmp_path)
    with one.lease(beside=True), two.lease(beside=True):
        assert {(each.folder / LEASE).exists() for each in (one, two)} == {True}
        with pytest.raises(RunError, match=r"another run is using .*one"), recipe.lease():
            pass
        assert not (tmp_path / LEASE).exists()
    with recipe.lease():
        with pytest.raises(RunError, match="another run is using"), one.lease(beside=True):
            pass
        assert not (one.folder / LEASE).exists()
    with two.lease(beside=True):  # nothing is left of those that were refused
        pass


def test_the_part_of_the_recipe_itself_works_beside_those_of_variants(tmp_path: Path) -> None:
    recipe = Store(tmp_path)
    one = Store(variant_folder(tmp_path, "one"))
    with one.lease(beside=True), recipe.lease(beside=True):
        assert not (tmp_path / LEASE).exists()
        assert owner_of(tmp_path) is not None
        with pytest.raises(RunError, match="another run is using"), recipe.lease(beside=True):
            pass
    assert owner_of(tmp_path) is None
    with recipe.lease(beside=True):
        with pytest.raises(RunError, match="another run is using"), one.lease():
            pass
        with pytest.raises(RunError, match="another run is using"), recipe.lease():
            pass
    with (
        recipe.lease(),
        pytest.raises(RunError, match="another run is using"),
        recipe.lease(beside=True),
    ):
        pass


def test_a_part_of_a_sweep_that_is_dead_keeps_nobody_out(tmp_path: Path) -> None:
    own = variant_folder(tmp_path, "one")
    held_by(own, processes=[ended()])
    with Store(tmp_path).lease():
        pass
