"""Replicas of a model share its answers: the same bytes, whatever their number."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_models import draw_job, policy, prompts
from torch._C._distributed_c10d import HashStore
from transformers import AutoModelForCausalLM

from etude.compiler.lowering.writing import mesh
from etude.runtime import ranks as gangs
from etude.runtime import sampling, world
from etude.runtime.launchers.allocation import Place
from etude.runtime.peers import Single
from etude.runtime.ranks import Ranks
from etude.runtime.sampling import draws as draws_of
from etude.runtime.sampling.draw_files import drawn
from etude.runtime.sampling.generators import Transformers
from etude.runtime.sampling.replicas import Replica

QUESTIONS = ["What is it?", "Say a word that rhymes with tree.", "Why?", "Who?", "How many are 2?"]


@given(
    prompts=st.integers(1, 12),
    draws=st.integers(1, 6),
    replicas=st.integers(1, 9),
    have=st.sets(st.integers(0, 71)),
)
def test_each_answer_is_drawn_by_one_replica(
    prompts: int, draws: int, replicas: int, have: set[int]
) -> None:
    left = [number for number in range(prompts * draws) if number not in have]
    shares = [Replica(n, replicas, 1, 0).share(left, draws) for n in range(replicas)]
    assert sorted(number for share in shares for number in share) == left


@given(prompts=st.integers(1, 40), draws=st.integers(1, 6), replicas=st.integers(1, 9))
def test_shares_are_equal_and_few_prompts_are_read_by_several(
    prompts: int, draws: int, replicas: int
) -> None:
    left = range(prompts * draws)
    shares = [Replica(n, replicas, 1, 0).share(left, draws) for n in range(replicas)]
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    readers = [sum(p in {n // draws for n in share} for share in shares) for p in range(prompts)]
    assert sum(count > 1 for count in readers) <= prompts % replicas


def test_ranks_of_a_replica_are_neighbours() -> None:
    of = mesh("H100", 4, 2, replicas=3)
    found = [Replica.here(of, rank) for rank in range(24)]
    assert [each.number for each in found] == [0] * 8 + [1] * 8 + [2] * 8
    assert [each.rank for each in found] == [*range(8)] * 3
    assert {(each.of, each.ranks) for each in found} == {(3, 8)}


class Threads(Single):
    """Ranks that are threads of one process."""

    def __init__(self, rank: int, sent: "Queue[bytes]") -> None:
        self.rank = rank
        self._sent = sent

    def send(self, message: bytes) -> None:
        self._sent.put(message)

    def received(self) -> bytes | None:
        try:
            return self._sent.get_nowait()
        except Empty:
            return None


class Killed(BaseException):
    pass


def draw(roles: dict[str, Path], folder: Path, replicas: int, kill_at: int | None = None) -> bytes:
    """The draws of so many replicas; all are killed after `kill_at` draws."""
    folder.mkdir(parents=True, exist_ok=True)
    several = mesh("cpu", replicas=replicas, node=replicas) if replicas > 1 else None
    job, sent = draw_job(draws=3, resources=several), Queue[bytes]()
    done = drawn(folder, job.draws)
    told: list[int] = []

    def tell(event: dict[str, Any]) -> None:
        told.append(event["draws"])
        if event["draws"] == kill_at:
            raise Killed

    def of(rank: int) -> None:
        peers = Threads(rank, sent)
        sampling.draw(job, roles, folder, root=folder, on_event=tell, done=done, peers=peers)

    others = [threading.Thread(target=of, args=(rank,)) for rank in range(1, replicas)]
    for each in others:
        each.start()
    try:
        of(0)
    finally:
        for each in others:
            each.join()
    assert told[-1] == len(QUESTIONS) * job.draws
    return (folder / "result" / "draws.jsonl").read_bytes()


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "model": policy(folder / "model"),
        "prompts": prompts(folder / "prompts", QUESTIONS),
    }


@pytest.fixture(scope="module")
def whole(roles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(roles, tmp_path_factory.mktemp("whole"), 1)


@pytest.mark.parametrize("replicas", [2, 3, 17])
def test_any_number_of_replicas_makes_the_same_file(
    replicas: int, roles: dict[str, Path], whole: bytes, tmp_path: Path
) -> None:
    assert draw(roles, tmp_path, replicas) == whole


def test_threads_load_models_one_after_another(
    roles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once could leave functions of transformers in torch.nn.init for good."""
    load, free, alone = AutoModelForCausalLM.from_pretrained, threading.Lock(), []

    def noted(*given: Any, **settings: Any) -> Any:
        alone.append(free.acquire(blocking=False))
        time.sleep(0.01)  # where another one would come
        try:
            return load(*given, **settings)
        finally:
            if alone[-1]:
                free.release()

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(Transformers, [roles["model"]] * 4))
    assert alone == [True] * 4


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 2), (2, 3)])
def test_killed_and_continued_by_another_number_of_replicas_it_is_the_same_file(
    before: int,
    after: int,
    roles: dict[str, Path],
    whole: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draws_of, "SAFE", 5)
    with pytest.raises(Killed):
        draw(roles, tmp_path, before, kill_at=5)
    assert len((tmp_path / draws_of.PARTIAL).read_bytes().splitlines()) == 5
    assert draw(roles, tmp_path, after) == whole


def gang(monkeypatch: pytest.MonkeyPatch, world_size: int) -> list[Ranks]:
    """Ranks of one process, on nodes of two."""
    store = HashStore()
    monkeypatch.setattr(gangs, "_join", lambda place: store)
    # Their watches would see each other's problems.
    monkeypatch.setattr(Ranks, "_watch", lambda self: None)
    places = [
        Place(rank, rank % 2, world_size, 2, "localhost", 12345) for rank in range(world_size)
    ]
    return [Ranks(place, lambda problem: None) for place in places]


def test_rank_0_gets_every_message_of_a_job_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = gang(monkeypatch, 3)
    for job in range(2):
        assert first.received() is None
        for number, rank in enumerate([0, 1, 1]):
            others[rank].send(f"{job} {number}".encode())
        assert [first.received() for _ in range(3)] == [f"{job} {n}".encode() for n in range(3)]
        assert first.received() is None
        for each in (first, *others):  # what all do next
            each._number += 1


def test_a_group_of_all_ranks_meets_elsewhere_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    every = gang(monkeypatch, 4)
    free = count(20_000)
    monkeypatch.setattr(gangs, "_free_port", lambda: next(free))
    for name, value in (("RANK", "9"), ("MASTER_PORT", "12345"), (world.AGENT, "True")):
        monkeypatch.setenv(name, value)
    told: list[tuple[str, str]] = []

    def init() -> None:
        assert world.AGENT not in os.environ
        told.append((os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]))

    monkeypatch.setattr(world.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(world, "_init", init)
    monkeypatch.setattr(world, "_record", lambda: None)
    for _ in range(2):
        for peers in every:
            world.make(peers, 4)
    assert told == [("localhost", "20000")] * 4 + [("localhost", "20001")] * 4
    kept = [os.environ[name] for name in ("RANK", "MASTER_PORT", world.AGENT)]
    assert kept == ["9", "12345", "True"]
    # Where only the node of another rank is meant, it is where that reaches rank 0 from.
    places = [peers.meet(2 * (rank // 2)) for rank, peers in enumerate(every)]
    assert places[0] == places[1] != places[2] == places[3]
    assert places[2][0] in ("127.0.0.1", "::1")


def test_a_group_that_is_there_stays() -> None:
    """A trainer's, in a process of its own: torch keeps what it has been told."""
    code = """if True:
        import torch.distributed as dist
        from etude.runtime import world
        from etude.runtime.peers import SINGLE
        world.make(SINGLE, 1)
        first = dist.group.WORLD
        world.make(SINGLE, 1)
        assert dist.group.WORLD is first and dist.get_world_size() == 1
        dist.destroy_process_group()
        world.make(SINGLE, 1)
        assert dist.group.WORLD is not first
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("no", [set[int](), {2}, {0, 1}])
def test_all_ranks_say_yes_or_all_hear_no(no: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    every = gang(monkeypatch, 3)
    with ThreadPoolExecutor(3) as pool:
        for asked in (no, set[int](), no):
            said = pool.map(
                lambda peers, asked=asked: peers.all_say(peers.rank not in asked), every
            )
            assert [*said] == [not asked] * 3
