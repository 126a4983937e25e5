"""The batches of a job, as its timeline defines them: the same for any number of ranks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.tools import utils

from ...compiler.as_written import counted
from ...compiler.schedule.timeline import Timeline
from ..data.order.ahead import Ahead
from ..data.order.stream import IGNORE, Stream, pack_into
from ..errors import DataError, RunError
from .updates.rollbacks import PassedOver

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]

AHEAD = 8
"""The most micro-batches that wait to be trained on."""


class Loader(BaseDataLoader):
    """Yields this rank's micro-batches of every step.

    The sequences of a step, in order, are cut into micro-batches of dp_world_size ×
    local_batch_size; rank r has the r-th slice of each. A thread reads up to `AHEAD` micro-batches
    ahead, into pinned memory if there is a GPU. The state is the number of the job's steps that
    have been handed out, whatever has been read.

    Each micro-batch is ({"input": …, "positions": …}, labels), int64, (local_batch_size, seq_len).

    Raises:
        RunError: a batch cannot be cut into whole micro-batches.
        DataError: a token id is outside the model's vocabulary.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        timeline: Timeline
        streams: Mapping[str, Stream] = field(default_factory=dict)
        first_tokens: Mapping[str, int]
        """source → the token of its stream at which the job begins."""
        vocab: int
        passed_over: PassedOver = field(default_factory=PassedOver)

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        self.timeline = config.timeline
        self._streams = config.streams
        self._first_tokens = config.first_tokens
        self._vocab = config.vocab
        self._passed_over = config.passed_over
        self._rank = dp_rank
        self._local_batch = local_batch_size
        self._micro_batch = dp_world_size * local_batch_size
        self._tokens = np.empty(self.timeline.seq_len + 1, np.int64)
        self.steps = 0
        self._reader: Ahead[tuple[Batch, bool]] | None = None
        for piece in self.timeline.schedule.batch:
            if piece.sequences % self._micro_batch:
                raise RunError(
                    f"the batch of {counted(piece.sequences, 'sequences')} from step "
                    f"{piece.from_step} on cannot be divided into micro-batches of "
                    f"{dp_world_size} ranks × {local_batch_size} sequences",
                    "plan again for this number of ranks",
                )

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        first, end = self.timeline.first_step + self.steps, self.timeline.schedule.batch[-1].to_step
        self._reader = Ahead(self._batches(range(first, end)), AHEAD, begin=thread_device())
        with closing(self._reader) as batches:
            for batch, last in batches:
                self.steps += last
                yield batch

    @property
    def local_batch(self) -> int:
        """Sequences of this rank's micro-batch."""
        return self._local_batch

    def close(self) -> None:
        """Stops the thread that reads ahead; the state counts what has been handed out."""
        if self._reader is not None:
            self._reader.close()

    def _batches(self, steps: Iterable[int]) -> Iterator[tuple[Batch, bool]]:
        """This rank's micro-batches of some steps, and whether each is the last of its step."""
        for step in steps:
            last = self.micro_batches(step)
            for number, batch in enumerate(self._micro_batches(step), start=1):
                yield pinned(batch), number == last

    def micro_batches(self, step: int) -> int:
        """How many micro-batches a step has, the same on all ranks."""
        return self.timeline.batch(step) // self._micro_batch

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of a step."""
        for start in range(0, self.timeline.batch(step), self._micro_batch):
            first = start + self._rank * self._local_batch
            yield self._read(step, range(first, first + self._local_batch))

    def _read(self, step: int, indices: Iterable[int]) -> Batch:
        """Some sequences of a step, as many as the local batch has."""
        shape = (self._local_batch, self.timeline.seq_len)
        inputs, labels, positions = (torch.empty(shape, dtype=torch.int64) for _ in range(3))
        rows = zip(inputs.numpy(), labels.numpy(), positions.numpy(), strict=True)
        for index, row in zip(indices, rows, strict=True):
            self._fill(step, index, *row)
        return {"input": inputs, "positions": positions}, labels

    def _fill(
        self, step: int, index: int, inputs: np.ndarray, labels: np.ndarray, positions: np.ndarray
    ) -> None:
        """Writes a sequence of a step; see `pack`."""
        source, position = self._locate(step, index)
        starts = self._streams[source].read_into(position, self._tokens)
        check_vocab(self._tokens, source, self._vocab)
        pack_into(self._tokens, starts, inputs, labels, positions)
        if len(starts) >= len(labels):  # each start takes one label
            check_targets(labels, source, f"the sequence from token {position:,} on")

    def _locate(self, step: int, index: int) -> tuple[str, int]:
        """The source of the step's sequence, and the token of its stream at which it begins."""
        source, ordinal = self.timeline.sequence(step, index)
        ordinal += self._passed_over.before(step).get(source, 0)
        return source, self._first_tokens[source] + ordinal * self.timeline.seq_len

    def positions(self) -> dict[str, int]:
        """source → the token of its stream that follows what the job has handed out."""
        step = self.timeline.first_step + self.steps
        drawn, more = self.timeline.drawn_before(step), self._passed_over.before(step)
        return {
            source: first + (drawn.get(source, 0) + more.get(source, 0)) * self.timeline.seq_len
            for source, first in self._first_tokens.items()
        }

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.steps = state_dict["steps"]


def thread_device() -> Callable[[], None] | None:
    """A function that gives the calling thread another thread's GPU: pinning memory opens a context
    on a thread's GPU, by default the first one. None if there is no GPU."""
    if utils.device_type == "cpu":
        return None
    return partial(utils.device_module.set_device, utils.device_module.current_device())


def pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU can read directly; unchanged if there is no GPU."""
    if utils.device_type == "cpu":
        return batch
    tensors, labels = batch
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}, labels.pin_memory()


def check_targets(labels: np.ndarray, source: str, what: str) -> None:
    """
    Args:
        what: the row, for the message.

    Raises:
        DataError: no label is learned. A batch of such rows has a loss of 0 / 0, which the learning
            rate does not cause.
    """
    if (labels == IGNORE).all():
        raise DataError(
            f"{what} of the data set `{source}` has no token to learn",
            f"remove the data set's artifact; the next run makes `{source}` again and rejects "
            "such records",
        )


class NoTokenizer(BaseTokenizer.Config):
    """Training needs no tokenizer: the shards hold token ids."""

    def build(self, **_: Any) -> None:
        return None


def check_vocab(tokens: np.ndarray, source: str, vocab: int) -> None:
    """
    Raises:
        DataError: a token id is outside the model's vocabulary.
    """
    if (largest := int(tokens.max())) >= vocab:
        raise DataError(
            f"the data set `{source}` has the token {largest}, but the model's vocabulary ends "
            f"at {vocab - 1}",
            "make the model's vocabulary as large as the tokenizer's",
        )
