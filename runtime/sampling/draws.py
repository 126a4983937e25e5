"""Draw jobs: answers to prompts, all in one stream, saved soon after they are drawn."""

import json
import os
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

from ...compiler.plan.plan import DrawJob
from .. import stopping
from ..data.tokens import tokenizer
from ..disk import disk
from ..peers import SINGLE, Peers
from ..run_folder.recorder import OnEvent
from . import replacing
from .draw_files import PARTIAL, finish
from .drawing import Generator, Request, Settings
from .generators import generator
from .noise import draw_seed
from .prompts import Prompt, Protocol, in_window, read
from .replicas import Replica

WAIT_SECONDS = 0.1
"""Seconds between two looks for the answers of other replicas, once this one has drawn its own."""
SAFE = 64
"""Answers after which they are flushed to disk, to survive a crash of the machine."""


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
    if generate is None:
        context = job.generation.context if job.generation else None
        generate = generator(model, job.resources, context, peers)
    drawing = _Drawing(job, path, folder, protocol, generate, on_event, done, peers, replica)
    with disk(folder / PARTIAL) if peers.rank == 0 else nullcontext():
        if job.until:
            drawing.first = replacing.begin(inputs.get("before"))
            replacing.draw(job, drawing.first, drawing.add, path, folder, root, peers)
        else:
            drawing.add(0, job.window.count if job.window else None)
            if peers.rank == 0:
                finish(folder, job.draws)


class _Drawing:
    """Answers to the prompts of a job, which may come in several parts.

    Args:
        path: the prompts.
        done: the answers that are there already, see `drawn`.

    Attributes:
        first: the place of the job's first prompt in the order of its stage.
    """

    def __init__(
        self,
        job: DrawJob,
        path: Path,
        folder: Path,
        protocol: Protocol,
        generate: Generator,
        on_event: OnEvent,
        done: Sequence[Sequence[int]],
        peers: Peers,
        replica: Replica,
    ) -> None:
        self.first = job.window.first if job.window else 0
        self._job, self._path, self._file = job, path, folder / PARTIAL
        self._protocol, self._generate, self._on_event = protocol, generate, on_event
        self._have = {number for begin, end in done for number in range(begin, end)}
        self._peers, self._replica = peers, replica

    def add(self, begin: int, count: int | None) -> list[int] | None:
        """Draws the answers to the next prompts that are not there yet.

        Args:
            begin: how many prompts there were before.
            count: how many there are; None: all of the set.

        Returns: the numbers of their records, if the job has a window.
        """
        job, numbers, longest = self._job, None, self._generate.context
        if job.window and count is not None:
            part = {"first": self.first + begin, "count": count}
            numbers = in_window(self._path, job.window.model_copy(update=part))
            longest = min(longest, job.window.longest)
        prompts = read(
            self._path, self._protocol, context=longest, limit=job.limit, numbers=numbers
        )
        total = (begin + len(prompts)) * job.draws
        missing = [n for n in range(begin * job.draws, total) if n not in self._have]
        left = self._replica.share(missing, job.draws)
        requests = [self._request(prompts[n // job.draws - begin], n, longest) for n in left]
        settings = Settings(job.temperature, job.top_p, self._protocol.stop)
        answers = self._generate.draw(requests, settings)
        lines = self._lines(answers, left, prompts, numbers, begin)
        if self._peers.rank != 0:
            sent = map(self._peers.send, map(zlib.compress, lines))
            deque(answers if self._replica.rank else sent, maxlen=0)
            return numbers
        with self._file.open("ab") as file:
            written = _Written(job, file, total - len(missing), total, self._on_event)
            written.take(lines, self._peers)
        return numbers

    def _request(self, prompt: Prompt, number: int, longest: int) -> Request:
        most = min(self._job.max_tokens, longest - len(prompt.tokens))
        return Request(prompt.tokens, self._seed(number), most)

    def _seed(self, number: int) -> int:
        """The seed of an answer: of a prompt at this place of its stage's order, for ever."""
        prompt, which = divmod(number, self._job.draws)
        return draw_seed(self._job.seed, self.first + prompt, which)

    def _lines(
        self,
        answers: Iterator[tuple[int, list[int]]],
        left: Sequence[int],
        prompts: Sequence[Prompt],
        numbers: Sequence[int] | None,
        begin: int,
    ) -> Iterator[bytes]:
        """The lines of draws as they come."""
        for place, tokens in answers:
            prompt, which = divmod(left[place], self._job.draws)
            asked = prompts[prompt - begin]
            text, message, finished = self._protocol.answer(tokens)
            line = {
                "prompt": prompt,
                "draw": which,
                "seed": self._seed(left[place]),
                "text": text,
                "messages": None if asked.messages is None else [*asked.messages, message],
                "finished": finished,
            }
            if numbers is not None:
                line |= {"record": numbers[prompt - begin], "tokens": tokens}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


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
