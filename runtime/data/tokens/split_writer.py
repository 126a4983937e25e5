"""Writes one split of token shards: its files and the index of its documents."""

from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

_INDEX_PIECE = 1 << 20


class Batch(NamedTuple):
    """Consecutive documents.

    Attributes:
        tokens: of all of them: shape (tokens,).
        lengths: tokens of each, at least one: int64, shape (documents,).
    """

    tokens: np.ndarray
    lengths: np.ndarray


class SplitWriter:
    """Writes one split: token files one after the other, and the documents' lengths."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype, shard_tokens: int) -> None:
        self.name = name
        self._folder = folder
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._files: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        self._documents = 0
        self._lengths_path = folder / f"{name}-lengths.tmp"
        self._lengths = self._lengths_path.open("wb")

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._lengths.close()
        if self._file is not None:
            self._file.close()

    def add(self, batch: Batch) -> None:
        """Writes documents. A file that has reached the size of a shard gets no further one."""
        ends = np.cumsum(batch.lengths)
        begin = token = 0
        while begin < len(ends):
            if self._file is None or self._files[-1]["tokens"] >= self._shard_tokens:
                if self._file is not None:
                    self._file.close()
                name = f"{self.name}-{len(self._files):05}.bin"
                self._file = (self._folder / name).open("wb")
                self._files.append({"file": name, "tokens": 0})
            room = self._shard_tokens - self._files[-1]["tokens"]
            begin = min(int(np.searchsorted(ends, token + room)) + 1, len(ends))
            end = int(ends[begin - 1])
            self._file.write(np.ascontiguousarray(batch.tokens[token:end]).data)
            self._files[-1]["tokens"] += end - token
            token = end
        self._lengths.write(batch.lengths.astype("<i8").data)
        self._documents += len(batch.lengths)

    def finish(self) -> dict[str, Any]:
        """Writes the index from the lengths and returns the split's part of the summary."""
        self.__exit__()
        index = f"{self.name}-index.npy"
        tokens = write_index(self._lengths_path, self._folder / index, self._documents)
        return {
            "documents": self._documents,
            "tokens": tokens,
            "index": index,
            "files": self._files,
        }


def write_index(lengths: Path, index: Path, documents: int) -> int:
    """Writes where documents begin and the last one ends, and removes the file of their lengths.

    Args:
        lengths: a file of 64-bit numbers, one per document.

    Returns: the sum of the lengths.
    Raises: OSError: writing failed.
    """
    end = 0
    # Written in pieces, not through a memory map, because a full disk would crash the process.
    with lengths.open("rb") as read, index.open("wb") as file:
        write_header(file, documents + 1)
        file.write(end.to_bytes(8, "little"))
        while piece := read.read(8 * _INDEX_PIECE):
            offsets = end + np.cumsum(np.frombuffer(piece, "<i8"))
            file.write(offsets.astype("<i8").data)
            end = int(offsets[-1])
    lengths.unlink()
    return end


def write_header(file: IO[bytes], count: int) -> None:
    """Begins an `.npy` file of `count` 64-bit numbers."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
