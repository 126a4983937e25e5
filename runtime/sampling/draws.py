"""Draw jobs: answers to prompts, all in one stream, saved soon after they are drawn."""

import json
import os
import shutil
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from ...compiler.plan.plan import DrawJob
from .. import stopping
from ..data import tokenizer
from ..data.drawn import DRAWS
from ..disk import disk, move
from ..peers import SINGLE, Peers
from ..run_folder.recorder import OnEvent
from .drawing import Generator, Request, Settings
from .generators import generator
from .noise import draw_seed
from .prompts import Prompt, Protocol, in_window, read
from .replicas import Replica

PARTIAL = "draws.partial.jsonl"
WAIT_SECONDS = 0.1
"""Seconds between two looks for the answers of other replicas, once this one has drawn its own."""
SAFE = 64
"""Answers after which they are flushed to disk, to survive a crash of the machine."""

Ranges = list[tuple[int, int]]
"""Ranges of numbers, each from the first up to, but not including, the second."""


def drawn(folder: Path, draws: int) -> Ranges:
    """The draws of an interrupted job: ranges of answer numbers, p × draws + d for draw d of prompt
    p. An answer torn by a crash is cut off."""
    path = folder / PARTIAL
    numbers, end = set(), 0
    if not path.exists():
        return []
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            found = json.loads(line)
            numbers.add(found["prompt"] * draws + found["draw"])
            end += len(line)
    os.truncate(path, end)
    return _ranges(sorted(numbers))


def _ranges(numbers: Sequence[int]) -> Ranges:
    ordered = enumerate(numbers)
    groups = [[n for _, n in each] for _, each in groupby(ordered, lambda e: e[1] - e[0])]
    return [(each[0], each[-1] + 1) for each in groups]


def draw(
    job: DrawJob,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    root: Path,
    on_event: OnEvent,
    done: Sequence[Sequence[int]] = (),
    peers: Peers = SINGLE,
    generate: Generator | None = None,
) -> None:
    """Draws answers and writes them into `folder/result/draws.jsonl`: every draw, ordered by prompt
    and draw, with prompt, draw, seed, text, messages (None for plain text) and finished; for the
    prompts of a window also the record's number in the set, and tokens.

    All ranks of the job's mesh call this together. Each replica of the model draws its share and
    sends each answer to rank 0, which writes it. The draws of a killed job are kept, and the file
    becomes the same, byte for byte, whatever the number of replicas before and after.

    Args:
        inputs: "model", an export; "prompts", with prompts.jsonl.
        folder: the job's work folder.
        root: the folder of the spec, which a template's path is relative to.
        on_event: gets an event `sampled` now and then.
        done: the result of `drawn`.
        peers: the ranks.
        generate: draws the answers; chosen according to the machine if it is None.

    Raises:
        RunError: the model cannot be loaded.
        DataError: a prompt is damaged, empty or too long, or the tokenizer lacks the protocol's
            tokens.
        Interrupted: asked to stop.
        Stopped: the disk cannot take the result.
    """
    model, path = inputs["model"], inputs["prompts"] / "prompts.jsonl"
    replica = Replica.here(job.resources, peers.rank)
    protocol = Protocol(job.dialog, tokenizer.load(model / "tokenizer.json"), root)
    generate = generate or _loaded(job, model, replica, peers)
    numbers, longest = None, generate.context
    if job.window:
        numbers, longest = in_window(path, job.window), min(longest, job.window.longest)
    prompts = read(path, protocol, context=longest, limit=job.limit, numbers=numbers)
    total = len(prompts) * job.draws
    have = {number for begin, end in done for number in range(begin, end) if number < total}
    left = replica.share([n for n in range(total) if n not in have], job.draws)
    requests = [_request(job, prompts, number, longest) for number in left]
    answers = generate.draw(requests, Settings(job.temperature, job.top_p, protocol.stop))
    lines = (
        _line(job, prompts, numbers, left[place], protocol.answer(tokens), tokens)
        for place, tokens in answers
    )
    if peers.rank != 0:
        sent = map(peers.send, map(zlib.compress, lines))
        deque(answers if replica.rank else sent, maxlen=0)
        return
    with disk(folder / PARTIAL):
        with (folder / PARTIAL).open("ab") as file:
            _Written(job, file, len(have), total, on_event).take(lines, peers)
        _finish(folder, job.draws)


def _loaded(job: DrawJob, model: Path, replica: Replica, peers: Peers) -> Generator:
    context = job.generation.context if job.generation else None
    on_gpus = job.resources is not None and job.resources.device != "cpu"
    with replica.apart(peers) if on_gpus else nullcontext():
        return generator(model, job.resources, context)


def _request(job: DrawJob, prompts: list[Prompt], number: int, longest: int) -> Request:
    tokens = prompts[number // job.draws].tokens
    most = min(job.max_tokens, longest - len(tokens))
    return Request(tokens, _seed(job, number), most)


def _seed(job: DrawJob, number: int) -> int:
    """The seed of an answer; in a window, of a stage's prompt at this place for the whole stage."""
    prompt, which = divmod(number, job.draws)
    first = job.window.first if job.window else 0
    return draw_seed(job.seed, first + prompt, which)


def _line(
    job: DrawJob,
    prompts: list[Prompt],
    numbers: Sequence[int] | None,
    number: int,
    answer: tuple[str, dict[str, Any], bool],
    tokens: list[int],
) -> bytes:
    """The line of a draw.

    Args:
        numbers: of the records, if the prompts are those of a window.
        number: of the draw.
    """
    prompt, which = divmod(number, job.draws)
    asked, (text, message, finished) = prompts[prompt], answer
    line = {
        "prompt": prompt,
        "draw": which,
        "seed": _seed(job, number),
        "text": text,
        "messages": None if asked.messages is None else [*asked.messages, message],
        "finished": finished,
    }
    if numbers is not None:
        line |= {"record": numbers[prompt], "tokens": tokens}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


class _Written:
    """Writes answers in the order in which they are ready."""

    def __init__(
        self, job: DrawJob, file: BinaryIO, count: int, total: int, on_event: OnEvent
    ) -> None:
        self.count, self.total = count, total
        self._job, self._file, self._on_event = job, file, on_event

    def take(self, own: Iterator[bytes], peers: Peers) -> None:
        """Writes the lines of all replicas as they come. If another rank is lost, its gang ends.

        Raises: Interrupted: asked to stop.
        """
        for line in own:
            self.add(line)
            self._add_received(peers)
            self._check()
        while self.count < self.total:
            self._add_received(peers)
            self._check()
            time.sleep(WAIT_SECONDS)
        self.save()

    def _add_received(self, peers: Peers) -> None:
        while (message := peers.received()) is not None:
            self.add(zlib.decompress(message))

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self.count += 1
        if self.count % SAFE == 0 and self.count < self.total:
            self.save()

    def _check(self) -> None:
        stopping.check(f"`{self._job.id}` has {self.count} of {self.total} draws, and continues")

    def save(self) -> None:
        """Flushes everything written to disk and reports it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        draws = self._job.draws
        self._on_event(
            {
                "event": "sampled",
                "job": self._job.id,
                "prompts": self.count // draws,
                "of": self.total // draws,
                "draws": self.count,
                "reward": None,
            }
        )


def _finish(folder: Path, draws: int) -> None:
    """Writes the result from all draws, in their order, and moves it into place atomically."""
    ready = folder / "result.partial"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    places: dict[int, int] = {}
    with (folder / PARTIAL).open("rb") as file:
        place = 0
        for line in file:
            found = json.loads(line)
            places[found["prompt"] * draws + found["draw"]] = place
            place += len(line)
        with (ready / DRAWS).open("wb") as result:
            for _, place in sorted(places.items()):
                file.seek(place)
                result.write(file.readline())
    move(ready, folder / "result")


def read_draws(folder: Path) -> Iterator[dict[str, Any]]:
    """The draws in a draw job's result, in order."""
    with (folder / DRAWS).open(encoding="utf-8") as file:
        yield from map(json.loads, file)
