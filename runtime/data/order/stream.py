"""The endless stream of one data set's tokens, with documents reshuffled in every epoch."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ..tokens.shards import Shards
from .layout import Layout
from .permutation import drawn, earliest

IGNORE = -100

# A read that straddles two windows needs both of them; more are never in use at once.
_WINDOWS_KEPT = 2
_PARTS_KEPT = 2
_PART_BITS = 12
"""A window is put in order in parts of 2^12 to 2^13 documents."""
_SUMMED = 2**14
"""Documents whose tokens are summed at once."""


class Pieces(NamedTuple):
    """Documents of a window, in reading order, as Python's numbers: they are read one by one.

    Attributes:
        firsts: where each begins in the split.
        begins: where each begins in the window, and the last one ends: one more.
    """

    firsts: list[int]
    begins: list[int]


class Window:
    """The documents of a window, in the order of the numbers drawn for them.

    Documents whose numbers begin with the same bits form a part. The tokens of each part are summed
    at once; its documents are put in order when the first of them is read. So a job that continues
    in the middle of a window sorts thousands of documents, not a million.

    Args:
        firsts, lengths: where each document begins in the split, and its tokens: int64, (pieces,).
        numbers: drawn for each: uint64, shape (pieces,).
    """

    def __init__(self, firsts: np.ndarray, lengths: np.ndarray, numbers: np.ndarray) -> None:
        self._firsts, self._lengths, self._numbers = firsts, lengths, numbers
        bits = (len(numbers) >> _PART_BITS).bit_length()
        # The first bits of the 16 highest ones, without an array of all 64.
        highest = numbers.astype("<u8", copy=False).view("<u2")[3::4]
        self._parts = highest >> np.uint16(16 - bits)
        tokens = np.zeros(1 << bits)
        # In stretches that stay in the processor's cache. Sums of float64 are exact below 2^53.
        for begin in range(0, len(numbers), _SUMMED):
            here = slice(begin, begin + _SUMMED)
            tokens += np.bincount(self._parts[here], lengths[here], 1 << bits)
        self._begins: list[int] = [0, *np.cumsum(tokens.astype(np.int64)).tolist()]
        self.part = lru_cache(maxsize=_PARTS_KEPT)(self._make_part)

    def part_at(self, place: int) -> int | None:
        """The part that contains this token of the window; None after its last one."""
        number = bisect_right(self._begins, place) - 1
        return number if number < len(self._begins) - 1 else None

    def _make_part(self, number: int) -> Pieces:
        here = np.flatnonzero(self._parts == number)
        order = here[earliest(self._numbers[here])]
        ends = self._begins[number] + np.cumsum(self._lengths[order])
        return Pieces(self._firsts[order].tolist(), [self._begins[number], *ends.tolist()])


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
        starts[self.read_into(position, tokens)] = True
        return tokens, starts

    def read_into(self, position: int, tokens: np.ndarray) -> list[int]:
        """Reads as many tokens as `tokens` has: int64, shape (length,); see `read`.

        Returns: the places in `tokens` at which a document, or a block's part of it, begins.
        """
        starts = []
        filled = 0
        for first, skip, count in self._pieces(position, len(tokens)):
            tokens[filled : filled + count] = self._shards.read(first + skip, count)
            if not skip:
                starts.append(filled)
            filled += count
        return starts

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
            window = self._window(epoch, number)
            place -= self._layout.begin(number)
            while length and (part := window.part_at(place)) is not None:
                firsts, begins = window.part(part)
                piece = bisect_right(begins, place) - 1
                while length and piece < len(firsts):
                    skip = place - begins[piece]
                    count = min(begins[piece + 1] - place, length)
                    yield firsts[piece], skip, count
                    position, place, length = position + count, place + count, length - count
                    piece += 1

    def _make_window(self, epoch: int, number: int) -> Window:
        ranges = self._layout.ranges(number, *self._identity, epoch)
        firsts, lengths = self._shards.cut(*ranges)
        return Window(firsts, lengths, self._numbers(len(firsts), epoch, number))

    def _numbers(self, count: int, epoch: int, window: int) -> np.ndarray:
        """What a window's pieces are ordered by: uint64, shape (count,)."""
        several = () if self._layout.windows == 1 else (window,)
        return drawn(count, *self._identity, epoch, *several)


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
    inputs, labels, positions = np.empty((3, len(tokens) - 1), np.int64)
    pack_into(tokens, np.flatnonzero(starts).tolist(), inputs, labels, positions)
    return inputs, labels, positions


def pack_into(
    tokens: np.ndarray,
    starts: Sequence[int],
    inputs: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Writes a training sequence into `inputs`, `labels` and `positions`; see `pack`.

    Args:
        starts: the places in `tokens` at which documents begin, ascending.
    """
    length = len(inputs)
    inputs[:] = tokens[:-1]
    labels[:] = tokens[1:]
    places = _first_numbers(length)
    if not starts or starts[0]:
        starts = [0, *starts]
    for begin, end in pairwise([*starts, length]):
        positions[begin:end] = places[: end - begin]
        if begin:
            labels[begin - 1] = IGNORE


@lru_cache(maxsize=8)
def _first_numbers(count: int) -> np.ndarray:
    return np.arange(count)
