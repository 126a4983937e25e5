"""Prompts whose answers are all right or all wrong are replaced by the next ones."""

import json
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from queue import Queue
from typing import Any, cast

import pytest
from sampling_models import draw_job, policy, prompts, read_lines

from etude.compiler.lowering.writing import mesh
from etude.compiler.plan.plan import PromptWindow, Until
from etude.compiler.plan.verifiers import Verifier
from etude.runtime import sampling
from etude.runtime.data.tokens import tokenizer
from etude.runtime.errors import Interrupted
from etude.runtime.peers import SINGLE, Peers, Single
from etude.runtime.sampling.draw_files import drawn
from etude.runtime.sampling.drawing import Request, Settings
from etude.runtime.sampling.noise import draw_seed
from etude.runtime.sampling.prompts import in_window

QUESTIONS = [f"Question {number}?" for number in range(7)]
GROUP, SEED, MOST = 2, 11, 8
EASY, HARD = 0, 1
"""Records whose answers are always right, and always wrong."""


def right(record: int, seed: int) -> bool:
    """Whether the stand-in's answer is right."""
    return record == EASY or (record != HARD and sha256(str(seed).encode()).digest()[0] % 2 == 0)


class Guesser:
    """Answers yes or no, by the seed; counts its answers, and is killed after some."""

    context = 64

    def __init__(self, folder: Path, kill: int | None = None) -> None:
        made = tokenizer.load(folder / "tokenizer.json")
        end = tokenizer.special(made).eos
        self.say = {
            is_right: [*made.encode("yes" if is_right else "no").ids, end]
            for is_right in (True, False)
        }
        self.decode = made.decode
        self.count, self.kill = 0, kill

    def draw(
        self, requests: Sequence[Request], settings: Settings
    ) -> Iterator[tuple[int, list[int]]]:
        for number, request in enumerate(requests):
            if self.count == self.kill:
                raise Interrupted("stopped", "run again")
            self.count += 1
            asked = self.decode(request.tokens.tolist())
            record = next(n for n, question in enumerate(QUESTIONS) if question in asked)
            yield number, self.say[right(record, request.seed)]


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "model": policy(folder / "model"),
        "prompts": prompts(folder / "prompts", QUESTIONS),
    }


class Pair(Single):
    """Two ranks that are threads of one process."""

    def __init__(self, rank: int, sent: "Queue[bytes]", said: "Queue[bytes]") -> None:
        self.rank = rank
        self._sent, self._said = sent, said

    def send(self, message: bytes) -> None:
        self._sent.put(message)

    def received(self) -> bytes | None:
        return None if self._sent.empty() else self._sent.get()

    def told(self, message: bytes) -> bytes:
        if self.rank == 0:
            self._said.put(message)
            return message
        return self._said.get()


def draw(
    roles: dict[str, Path],
    folder: Path,
    count: int,
    *,
    kill: int | None = None,
    most: int = MOST,
    peers: Peers = SINGLE,
) -> Path:
    verify = {"yes": Verifier(kind="regex", pattern="yes")}
    job = draw_job(
        draws=GROUP,
        seed=SEED,
        window=PromptWindow(first=0, count=count, seed=3, longest=64),
        until=Until(verify=verify, weights={"yes": 1.0}, most=most),
        resources=None if peers is SINGLE else mesh("cpu", replicas=2, node=2),
    )
    folder.mkdir(exist_ok=True)
    sampling.draw(
        job,
        roles,
        folder,
        root=folder,
        on_event=lambda event: None,
        done=drawn(folder, GROUP),
        peers=peers,
        generate=cast(Any, Guesser(roles["model"], kill)),
    )
    return folder / "result"


def walked(roles: dict[str, Path], first: int, most: int) -> list[tuple[int, bool]]:
    """The prompts from a place on, in order: their records, and whether their answers differ."""
    window = PromptWindow(first=first, count=most, seed=3, longest=64)
    records = in_window(roles["prompts"] / "prompts.jsonl", window)
    return [
        (record, len({right(record, draw_seed(SEED, first + n, d)) for d in range(GROUP)}) > 1)
        for n, record in enumerate(records)
    ]


def summary(result: Path) -> dict[str, Any]:
    return json.loads((result / "summary.json").read_text())


def test_the_first_prompts_whose_answers_differ_are_taken(
    roles: dict[str, Path], tmp_path: Path
) -> None:
    result = draw(roles, tmp_path, 4)
    every = walked(roles, 0, 32)
    places = [place for place, (_, differ) in enumerate(every) if differ][:4]
    draws = read_lines(result / "draws.jsonl")
    assert [d["prompt"] for d in draws] == [place for place in places for _ in range(GROUP)]
    assert [d["record"] for d in draws[::GROUP]] == [every[place][0] for place in places]
    assert [d["scores"] for d in draws] == [{"yes": float(d["text"] == "yes")} for d in draws]
    before = [record for record, differ in every[: places[-1] + 1] if not differ]
    found = summary(result)
    assert found["next"] == found["drawn"] == places[-1] + 1
    assert found["alike"] == len(before) > 0
    assert found["right"] + found["wrong"] == found["alike"]
    assert found["filled"] == 0


def test_the_next_turn_begins_behind_the_last_prompt_taken(
    roles: dict[str, Path], tmp_path: Path
) -> None:
    before = draw(roles, tmp_path / "1", 3)
    first = summary(before)["next"]
    result = draw({**roles, "before": before}, tmp_path / "2", 3)
    every = walked(roles, first, 24)
    places = [place for place, (_, differ) in enumerate(every) if differ][:3]
    draws = read_lines(result / "draws.jsonl")
    assert [d["record"] for d in draws[::GROUP]] == [every[place][0] for place in places]
    assert [d["seed"] for d in draws] == [
        draw_seed(SEED, first + place, d) for place in places for d in range(GROUP)
    ]


def test_where_too_few_differ_others_fill_the_rest(roles: dict[str, Path], tmp_path: Path) -> None:
    roles = {**roles, "prompts": prompts(tmp_path / "two", QUESTIONS[:2])}
    result = draw(roles, tmp_path / "drawn", 3, most=2)
    assert len(read_lines(result / "draws.jsonl")) == 3 * GROUP
    found = summary(result)
    assert (found["drawn"], found["filled"], found["next"]) == (6, 3, 6)
    assert (found["right"], found["wrong"]) == (3, 3)


@pytest.mark.parametrize("kill", [1, 8, 9, 13])
def test_killed_and_resumed_it_takes_the_same(
    roles: dict[str, Path], tmp_path: Path, kill: int
) -> None:
    whole = draw(roles, tmp_path / "whole", 4)
    with pytest.raises(Interrupted):
        draw(roles, tmp_path / "killed", 4, kill=kill)
    result = draw(roles, tmp_path / "killed", 4)
    for name in ("draws.jsonl", "summary.json"):
        assert (result / name).read_bytes() == (whole / name).read_bytes()


def test_two_replicas_take_the_same(roles: dict[str, Path], tmp_path: Path) -> None:
    alone = draw(roles, tmp_path / "alone", 4)
    ranks = [Pair(rank, *queues) for queues in [(Queue(), Queue())] for rank in range(2)]
    other = threading.Thread(
        target=lambda: draw(roles, tmp_path / "other", 4, peers=ranks[1]), daemon=True
    )
    other.start()
    two = draw(roles, tmp_path / "two", 4, peers=ranks[0])
    other.join()
    for name in ("draws.jsonl", "summary.json"):
        assert (two / name).read_bytes() == (alone / name).read_bytes()
