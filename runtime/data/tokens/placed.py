"""Token shards without tokens of their own: documents as stretches of token files.

The files may be in the folder, such as those of parts of a preparation, or anywhere else, such as
tokens from another program. They are never copied. All files count as laid end to end.
`shards.json` lists them under `files`, each with its `file` (a name in the folder, or an absolute
path), `tokens`, `dtype` and `offset`, the byte at which its tokens begin.

A split has an index like any other (see `shards`), and is divided into runs: documents that are
also consecutive in the files. `train-runs.npy` gives the position of each run in the split, and
`train-places.npy` its position in the files, both as 64-bit token counts. So holding out a document
takes 16 bytes, and no copy.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...disk import write
from ...errors import DataError
from .shards import SPLITS, SUMMARY, held_out
from .split_writer import write_header, write_index

_PIECE = 1 << 20


@dataclass(frozen=True)
class TokenFile:
    """A file of tokens.

    Attributes:
        file: its name in the folder of the shards, or its absolute path.
        tokens: how many it holds, from `offset` to its end.
        dtype: of the tokens, little-endian: "uint16".
        offset: the byte at which they begin.
    """

    file: str
    tokens: int
    dtype: str
    offset: int = 0


class Places(NamedTuple):
    """Consecutive documents of a data set.

    Attributes:
        begins: where each begins in all files end to end: int64, shape (documents,).
        lengths: tokens of each, at least one: int64, shape (documents,). None spans two files.
    """

    begins: np.ndarray
    lengths: np.ndarray


def write_placed(
    batches: Iterable[Places],
    files: Sequence[TokenFile],
    folder: Path,
    *,
    dtype: np.dtype,
    holdout: Fraction,
    seed: int,
    name: str,
    extra: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Writes two splits of documents whose tokens are in files.

    Args:
        batches: read once.
        files: all files that contain documents.
        folder: exists; the caller renames it into place.
        dtype: large enough for all tokens.
        holdout, seed, name: see `shards.held_out`.
        extra: returns further entries of the summary, once all documents have been read.

    Returns: the contents of `shards.json`.
    Raises:
        DataError: there are no documents.
        OSError: writing failed.
    """
    count = tokens = 0
    writers = {split: PlacedWriter(folder, split) for split in SPLITS}
    with writers["train"] as train, writers["heldout"] as heldout:
        for batch in batches:
            outs = np.zeros(len(batch.lengths), bool)
            if holdout:
                numbers = range(count, count + len(outs))
                outs[:] = [held_out(each, holdout, seed=seed, name=name) for each in numbers]
            train.add(Places(batch.begins[~outs], batch.lengths[~outs]))
            heldout.add(Places(batch.begins[outs], batch.lengths[outs]))
            count += len(outs)
            tokens += int(batch.lengths.sum())
        if count == 0:
            raise DataError(
                f"the data set `{name}` has no documents", "add at least one that is not empty"
            )
        content = {
            "name": name,
            "seed": seed,
            "holdout": str(holdout),
            "dtype": dtype.name,
            **extra(),
            "documents": count,
            "tokens": tokens,
            "files": [asdict(file) for file in files],
            "splits": {split: writer.finish() for split, writer in writers.items()},
        }
    write(folder / SUMMARY, json.dumps(content, indent=2) + "\n")
    return content


class PlacedWriter:
    """Writes one split: lengths, which become its index, and runs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._documents = self._tokens = self._runs = 0
        # Where the last run so far ends in the files.
        self._end = -1
        self._paths = {
            part: folder / f"{name}-{part}.tmp" for part in ("lengths", "runs", "places")
        }
        self._files = {part: path.open("wb") for part, path in self._paths.items()}

    def __enter__(self) -> "PlacedWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, batch: Places) -> None:
        """Adds documents."""
        if not len(batch.lengths):
            return
        ends = np.cumsum(batch.lengths)
        begins = self._tokens + ends - batch.lengths
        before = np.concatenate([[self._end], (batch.begins + batch.lengths)[:-1]])
        breaks = batch.begins != before
        self._files["lengths"].write(batch.lengths.astype("<i8").data)
        self._files["runs"].write(begins[breaks].astype("<i8").data)
        self._files["places"].write(batch.begins[breaks].astype("<i8").data)
        self._documents += len(batch.lengths)
        self._tokens += int(ends[-1])
        self._runs += int(breaks.sum())
        self._end = int(batch.begins[-1] + batch.lengths[-1])

    def finish(self) -> dict[str, Any]:
        """Writes index and runs and returns the split's part of the summary."""
        self.__exit__()
        names = {part: f"{self.name}-{part}.npy" for part in ("index", "runs", "places")}
        write_index(self._paths["lengths"], self._folder / names["index"], self._documents)
        for part in ("runs", "places"):
            with (self._folder / names[part]).open("wb") as file:
                write_header(file, self._runs)
                for piece in _pieces(self._paths[part]):
                    file.write(piece)
            self._paths[part].unlink()
        return {"documents": self._documents, "tokens": self._tokens, **names}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(8 * _PIECE):
            yield piece
