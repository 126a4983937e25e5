"""Draw jobs: answers to prompts, all in one stream, saved soon after they are drawn."""

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from ...compiler.plan.plan import DrawJob
from .. import stopping
from ..data import tokenizer
from ..data.drawn import DRAWS
from ..disk import disk, move
from ..run_folder.recorder import OnEvent
from .drawing import Generator, Request, Settings
from .generators import generator
from .noise import draw_seed
from .prompts import Prompt, Protocol, in_window, read

PARTIAL = "draws.partial.jsonl"
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
    leads: bool = True,
    generate: Generator | None = None,
) -> None:
    """Draws answers and writes them into `folder/result/draws.jsonl`: every draw, ordered by prompt
    and draw, with prompt, draw, seed, text, messages (None for plain text) and finished; for the
    prompts of a window also the record's number in the set, and tokens.

    All ranks of the job's mesh call this together; one of them writes. The draws of a killed job
    are kept, and the file becomes the same, byte for byte.

    Args:
        inputs: "model", an export; "prompts", with prompts.jsonl.
        folder: the job's work folder.
        root: the folder of the spec, which a template's path is relative to.
        on_event: gets an event `sampled` now and then.
        done: the result of `drawn`.
        leads: whether this process writes.
        generate: draws the answers; chosen according to the machine if it is None.

    Raises:
        RunError: the model cannot be loaded.
        DataError: a prompt is damaged, empty or too long, or protocol and tokenizer are
            incompatible.
        Interrupted: asked to stop.
        Stopped: the disk cannot take the result.
    """
    model, path = inputs["model"], inputs["prompts"] / "prompts.jsonl"
    protocol = Protocol(job.dialog, tokenizer.load(model / "tokenizer.json"), root)
    context = job.generation.context if job.generation else None
    generate = generate or generator(model, job.resources, context)
    numbers, longest = None, generate.context
    if job.window:
        numbers, longest = in_window(path, job.window), min(longest, job.window.longest)
    prompts = read(path, protocol, context=longest, limit=job.limit, numbers=numbers)
    total = len(prompts) * job.draws
    have = {number for begin, end in done for number in range(begin, end) if number < total}
    left = [number for number in range(total) if number not in have]
    requests = [_request(job, prompts, number, longest) for number in left]
    answers = generate.draw(requests, Settings(job.temperature, job.top_p, protocol.stop))
    if not leads:
        deque(answers, maxlen=0)
        return
    with disk(folder / PARTIAL):
        with (folder / PARTIAL).open("ab") as file:
            written = _Written(job, file, len(have), total, on_event)
            for place, tokens in answers:
                line = _line(job, prompts, left[place], protocol.answer(tokens))
                written.add(line | _kept(job, numbers, left[place], tokens))
                stopping.check(f"`{job.id}` has {written.count} of {total} draws, and continues")
            written.save()
        _finish(folder, job.draws)


def _request(job: DrawJob, prompts: list[Prompt], number: int, longest: int) -> Request:
    tokens = prompts[number // job.draws].tokens
    most = min(job.max_tokens, longest - len(tokens))
    return Request(tokens, _seed(job, number), most)


def _kept(
    job: DrawJob, numbers: Sequence[int] | None, number: int, tokens: list[int]
) -> dict[str, Any]:
    """What is kept of a draw besides, if its prompts are those of a window."""
    if numbers is None:
        return {}
    return {"record": numbers[number // job.draws], "tokens": tokens}


def _seed(job: DrawJob, number: int) -> int:
    """The seed of an answer; in a window, of a stage's prompt at this place for the whole stage."""
    prompt, which = divmod(number, job.draws)
    first = job.window.first if job.window else 0
    return draw_seed(job.seed, first + prompt, which)


def _line(
    job: DrawJob, prompts: list[Prompt], number: int, answer: tuple[str, dict[str, Any], bool]
) -> dict[str, Any]:
    prompt, which = divmod(number, job.draws)
    asked, (text, message, finished) = prompts[prompt], answer
    return {
        "prompt": prompt,
        "draw": which,
        "seed": _seed(job, number),
        "text": text,
        "messages": None if asked.messages is None else [*asked.messages, message],
        "finished": finished,
    }


class _Written:
    """Writes answers in the order in which they are ready."""

    def __init__(
        self, job: DrawJob, file: BinaryIO, count: int, total: int, on_event: OnEvent
    ) -> None:
        self.count = count
        self._job, self._file, self._total, self._on_event = job, file, total, on_event

    def add(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self.count += 1
        if self.count % SAFE == 0 and self.count < self._total:
            self.save()

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
                "of": self._total // draws,
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
