"""The endless stream of one data set's tokens, its documents reshuffled in every epoch."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import numpy as np

from ..errors import DataError
from .shards import Shards

IGNORE = -100

# A read that straddles two epochs needs both of them; more are never in use at once.
_EPOCHS_KEPT = 2


class Stream:
    """All documents of a split, epoch after epoch, each epoch in an order of its own.

    The order depends on (seed, name, epoch) and the number of documents alone: not on the
    machine, the number of ranks, or what has been read before.

    Args:
        shards: the documents, at least one.
        seed: of the run.
        name: of the data set.
        cache: a folder for the orders, shared by all ranks; without it each process keeps its own
            in memory, 16 bytes a document and epoch.

    Raises:
        DataError: the split has no documents.
        OSError: the cache folder cannot be written.
    """

    def __init__(self, shards: Shards, *, seed: int, name: str, cache: Path | None = None) -> None:
        if shards.documents == 0:
            raise DataError(
                f"the split `{shards.split}` of the data set `{name}` has no documents",
                "give the data set more documents, or change the share that it holds out",
            )
        self._shards = shards
        self._identity = (seed, name)
        self._cache = cache
        self._lengths_digest = sha256(shards.lengths.data).hexdigest() if cache else ""
        self._epoch = lru_cache(maxsize=_EPOCHS_KEPT)(self._load_epoch)

    @property
    def epoch_tokens(self) -> int:
        """Tokens in one epoch."""
        return self._shards.tokens

    def read(self, position: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads `length` tokens from `position`, counted from the beginning of epoch 0.

        The cost is that of the documents in the stretch, wherever it lies.

        Returns:
            tokens: int64, shape (length,).
            starts: bool, shape (length,): whether the token is the first of its document.

        Raises:
            ValueError: a negative position or length.
        """
        if position < 0 or length < 0:
            raise ValueError(f"cannot read {length} tokens from position {position}")
        tokens = np.empty(length, np.int64)
        starts = np.zeros(length, bool)
        filled = 0
        for document, start, count in self.stretches(position, length):
            piece = self._shards.document(document)[start : start + count]
            tokens[filled : filled + count] = piece
            starts[filled] = start == 0
            filled += count
        return tokens, starts

    def stretches(self, position: int, length: int) -> Iterator[tuple[int, int, int]]:
        """What `read` reads: the number of each document, the first token of it and how many."""
        while length:
            epoch, skip = divmod(position, self.epoch_tokens)
            order, begins = self._epoch(epoch)
            place = int(np.searchsorted(begins, skip, side="right")) - 1
            skip -= int(begins[place])
            for document in order[place:]:
                count = min(int(self._shards.lengths[document]) - skip, length)
                yield int(document), skip, count
                position, length, skip = position + count, length - count, 0
                if not length:
                    break

    def _load_epoch(self, epoch: int) -> np.ndarray:
        """The documents' order and the offsets at which they begin: int64, (2, documents)."""
        if self._cache is None:
            return self._make_epoch(epoch)
        name = digest(*self._identity, epoch, self._lengths_digest).hex()[:32]
        path = self._cache / f"order-{name}.npy"
        # A file that is missing, or that a crash of the machine has cut off, is rebuilt.
        with suppress(OSError, ValueError, EOFError, IndexError):
            made = np.load(path, mmap_mode="r")
            last = self.epoch_tokens - self._shards.lengths[made[0, -1]]
            if made.shape == (2, self._shards.documents) and made[1, -1] == last:
                return made
        write_whole(path, lambda file: np.save(file, self._make_epoch(epoch)))
        return np.load(path, mmap_mode="r")

    def _make_epoch(self, epoch: int) -> np.ndarray:
        made = np.empty((2, self._shards.documents), np.int64)
        made[0] = shuffled(self._shards.documents, *self._identity, epoch)
        made[1, 0] = 0
        np.cumsum(self._shards.lengths[made[0, :-1]], out=made[1, 1:])
        return made


def shuffled(count: int, seed: int, name: str, epoch: int) -> np.ndarray:
    """The numbers below `count` in the order of an epoch: int64, shape (count,)."""
    number = int.from_bytes(digest(seed, name, epoch), "big")
    # Sorted raw numbers, since NumPy promises only these, and not `permutation`, to stay the
    # same from version to version: a run can be resumed after an update.
    numbers = np.random.PCG64(np.random.SeedSequence(number)).random_raw(count)
    return np.argsort(numbers, kind="stable").astype(np.int64)


def pack(tokens: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes one training sequence of a stretch of the stream.

    Args:
        tokens: int64, shape (L + 1,).
        starts: bool, shape (L + 1,): whether the token is the first of a document.

    Returns:
        inputs: int64, shape (L,).
        labels: int64, shape (L,): the next token, or IGNORE where that begins another document.
        positions: int64, shape (L,): from 0 in every document, and from 0 at the beginning.
    """
    inputs = tokens[:-1].copy()
    labels = np.where(starts[1:], IGNORE, tokens[1:])
    places = np.arange(len(inputs))
    positions = places - np.maximum.accumulate(np.where(starts[:-1], places, 0))
    return inputs, labels, positions


def digest(*parts: object) -> bytes:
    """A hash of JSON values."""
    return sha256(json.dumps(parts).encode()).digest()


def write_whole(path: Path, save: Callable[..., None]) -> None:
    """Writes a file whole or not at all; several processes may write the same one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Temporary files of the library are for nobody else to read, whatever the umask says.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            save(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
