"""The endless stream of one data set's tokens, with documents reshuffled in every epoch."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .layout import Layout
from .permutation import shuffled
from .shards import Shards

IGNORE = -100

# A read that straddles two windows needs both of them; more are never in use at once.
_WINDOWS_KEPT = 2


class Pieces(NamedTuple):
    """The documents of a window, in reading order.

    Attributes:
        firsts: where each begins in the split: int64, shape (pieces,).
        begins: where each begins in the window, and the last one ends: int64, (pieces + 1,).
    """

    firsts: np.ndarray
    begins: np.ndarray


class Stream:
    """All documents of a split, epoch after epoch, each epoch in its own order.

    The order depends only on (seed, name, epoch), the number of documents and the number of tokens:
    not on the machine, the number of ranks, or earlier reads. See `Layout`.

    Args:
        shards: the documents, at least one.
        seed: of the run.
        name: of the data set.

    Raises:
        DataError: the split has no documents.
    """

    def __init__(self, shards: Shards, *, seed: int, name: str) -> None:
        if shards.documents == 0:
            raise DataError(
                f"the split `{shards.split}` of the data set `{name}` has no documents",
                "add documents to the data set, or change its `holdout`",
            )
        self._shards = shards
        self._identity = (seed, name)
        self._layout = Layout.of(shards.documents, shards.tokens)
        self._window = lru_cache(maxsize=_WINDOWS_KEPT)(self._make_window)

    @property
    def epoch_tokens(self) -> int:
        """Tokens in one epoch."""
        return self._shards.tokens

    def read(self, position: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads `length` tokens from `position`, counted from the beginning of epoch 0.

        The cost is that of the documents in the stretch, regardless of its position, plus that of
        the window's table for the first stretch of a window.

        Returns:
            tokens: int64, shape (length,).
            starts: bool, shape (length,): whether the token is the first of its document, or of a
                block's part of it.

        Raises:
            ValueError: a negative position or length.
            DataError: the files are damaged.
        """
        if position < 0 or length < 0:
            raise ValueError(f"cannot read {length} tokens from position {position}")
        tokens = np.empty(length, np.int64)
        starts = np.zeros(length, bool)
        filled = 0
        for first, skip, count in self._pieces(position, length):
            tokens[filled : filled + count] = self._shards.read(first + skip, count)
            starts[filled] = skip == 0
            filled += count
        return tokens, starts

    def stretches(self, position: int, length: int) -> Iterator[tuple[int, int]]:
        """What `read` reads: the number of each document, and how many of its tokens."""
        for first, skip, count in self._pieces(position, length):
            yield self._shards.owner(first + skip), count

    def _pieces(self, position: int, length: int) -> Iterator[tuple[int, int, int]]:
        """What `read` reads: where each piece begins in the split, how many of its tokens are
        skipped, and how many are read."""
        while length:
            epoch, place = divmod(position, self.epoch_tokens)
            number = self._layout.window_at(place)
            firsts, begins = self._window(epoch, number)
            place -= self._layout.begin(number)
            piece = int(np.searchsorted(begins, place, side="right")) - 1
            while length and piece < len(firsts):
                skip = place - int(begins[piece])
                count = min(int(begins[piece + 1]) - place, length)
                yield int(firsts[piece]), skip, count
                position, place, length = position + count, place + count, length - count
                piece += 1

    def _make_window(self, epoch: int, number: int) -> Pieces:
        ranges = self._layout.ranges(number, *self._identity, epoch)
        firsts, lengths = self._shards.cut(*ranges)
        order = self._order(len(firsts), epoch, number)
        begins = np.zeros(len(firsts) + 1, np.int64)
        np.cumsum(lengths[order], out=begins[1:])
        return Pieces(firsts[order], begins)

    def _order(self, count: int, epoch: int, window: int) -> np.ndarray:
        """The order of a window's pieces: int64, shape (count,)."""
        if self._layout.windows == 1:
            return shuffled(count, *self._identity, epoch)
        return shuffled(count, *self._identity, epoch, window)


def pack(tokens: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes one training sequence from a stretch of the stream.

    Args:
        tokens: int64, shape (L + 1,).
        starts: bool, shape (L + 1,): whether the token is the first of a document.

    Returns:
        inputs: int64, shape (L,).
        labels: int64, shape (L,): the next token, or IGNORE if that begins another document.
        positions: int64, shape (L,): from 0 in every document, and from 0 at the beginning.
    """
    inputs = tokens[:-1].copy()
    labels = np.where(starts[1:], IGNORE, tokens[1:])
    places = np.arange(len(inputs))
    positions = places - np.maximum.accumulate(np.where(starts[:-1], places, 0))
    return inputs, labels, positions
