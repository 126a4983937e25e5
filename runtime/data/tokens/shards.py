"""Tokenized documents in memory-mapped files.

For each of the splits `train` and `heldout`, a folder of shards has flat files of token ids
(`train-00000.bin`, …; little-endian, 16 bits if the vocabulary fits, else 32) and the index
`train-index.npy`: `documents + 1` 64-bit offsets. Document `i` is the tokens from `index[i]` to
`index[i + 1]` of the joined files. No document spans two files. `shards.json` is the summary. If
the tokens are in files that both splits share, two more arrays say where each stretch of a split is
in them: see `placed`.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import accumulate, chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from ...disk import write
from ...errors import DataError
from ..reading.streams import unreadable
from .fim import Fim, pieces
from .maps import Map, map_npy
from .split_writer import Batch, SplitWriter
from .tokenizer import special

SPLITS = ("train", "heldout")
SUMMARY = "shards.json"

# Tokenized at once: enough to keep all threads busy, little enough to stay in memory.
_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 4_000_000
# Every map holds a file descriptor, and a process is often limited to 1024 of them.
_MAPS_KEPT = 64


def write_shards(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    holdout: Fraction,
    seed: int,
    name: str,
    shard_tokens: int = 2**28,
    progress: Callable[[int, int], None] | None = None,
    fim: Fim | None = None,
) -> dict[str, Any]:
    """Tokenizes documents as `[bos] + ids + [eos]` and writes them in two splits.

    The name of a special token inside a document is tokenized like any other text.

    Args:
        texts: the documents; read once, never all in memory.
        folder: created if missing; the caller renames it into place.
        holdout: the share of documents in the split `heldout`, see `held_out`.
        shard_tokens: a file with this many tokens gets no further document.
        progress: called now and then with the documents and tokens so far.
        fim: which documents are rearranged to fill in their middle, and how.

    Returns:
        The contents of `shards.json`: `name`, `seed`, `holdout`, `dtype`, `vocab`, `bos`, `eos`,
        `documents`, `tokens` and, under `splits`, for each split its `documents`, `tokens`,
        `index` (file name) and `files` (`file` and `tokens` of each).

    Raises:
        DataError: there are no documents, or the tokenizer has no end-of-text token.
        OSError: writing failed.
    """
    return write_splits(
        tokenized(texts, tokenizer, progress, fim),
        folder,
        SUMMARY,
        holdout=holdout,
        seed=seed,
        name=name,
        shard_tokens=shard_tokens,
        **kinds(tokenizer),
    )


def kinds(tokenizer: Tokenizer) -> dict[str, Any]:
    """The properties of a tokenizer's tokens: `dtype` and `extra` for `write_splits`."""
    ids = special(tokenizer)
    vocab = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    dtype = np.dtype("<u2" if vocab <= 2**16 else "<u4")
    return {"dtype": dtype, "extra": lambda: {"vocab": vocab, "bos": ids.bos, "eos": ids.eos}}


def write_splits(
    batches: Iterable[Batch],
    folder: Path,
    summary: str,
    *,
    dtype: np.dtype,
    holdout: Fraction,
    seed: int,
    name: str,
    shard_tokens: int = 2**28,
    extra: Callable[[], dict[str, Any]] | None = None,
    what: str = "documents",
) -> dict[str, Any]:
    """Writes tokenized documents, as `write_shards` does.

    Args:
        batches: documents of at least one token, of `dtype`; read once, never all in memory.
        summary: name of the summary file.
        extra: returns further entries of the summary, once all documents have been read.
        what: what messages call the documents.

    Raises:
        DataError: there are no documents.
        OSError: writing failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = tokens = 0
    with (
        SplitWriter(folder, "train", dtype, shard_tokens) as train,
        SplitWriter(folder, "heldout", dtype, shard_tokens) as heldout,
    ):
        for batch in batches:
            for out, run in _by_split(batch, count, holdout, seed, name):
                (heldout if out else train).add(run)
            count += len(batch.lengths)
            tokens += len(batch.tokens)
        if count == 0:
            raise DataError(
                f"the data set `{name}` has no {what}", "add at least one that is not empty"
            )
        content = {
            "name": name,
            "seed": seed,
            "holdout": str(holdout),
            "dtype": dtype.name,
            **(extra() if extra else {}),
            "documents": count,
            "tokens": tokens,
            "splits": {split.name: split.finish() for split in (train, heldout)},
        }
    write(folder / summary, json.dumps(content, indent=2) + "\n")
    return content


def tokenized(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None = None,
    fim: Fim | None = None,
) -> Iterator[Batch]:
    """Tokenizes documents for `write_shards`, which describes the arguments."""
    ids = special(tokenizer)
    dtype = kinds(tokenizer)["dtype"]
    head = [] if ids.bos is None else [ids.bos]
    documents = tokens = 0
    for batch in _batches(texts):
        found = [
            np.array([*head, *encoded, ids.eos], dtype)
            for encoded in _documents(tokenizer, pieces(batch, fim))
        ]
        made = Batch(np.concatenate(found), np.array(list(map(len, found)), np.int64))
        documents += len(made.lengths)
        tokens += len(made.tokens)
        yield made
        if progress is not None:
            progress(documents, tokens)


def _by_split(
    batch: Batch, first: int, share: Fraction, seed: int, name: str
) -> Iterator[tuple[bool, Batch]]:
    """Runs of documents that are all held out, or all not.

    Args:
        first: the number of the batch's first document.
    """
    numbers = range(first, first + len(batch.lengths))
    outs = [held_out(number, share, seed=seed, name=name) for number in numbers] if share else []
    ends = np.cumsum(batch.lengths)
    begin = token = 0
    for out, run in groupby(outs or [False] * len(batch.lengths)):
        end = begin + sum(1 for _ in run)
        last = int(ends[end - 1])
        yield out, Batch(batch.tokens[token:last], batch.lengths[begin:end])
        begin, token = end, last


def held_out(ordinal: int, share: Fraction, *, seed: int, name: str) -> bool:
    """Whether the document with this number (from 0) is held out.

    A hash of (seed, name, ordinal) decides, except for the first two documents: if a part is held
    out, the first one never is and the second one always is, so that with at least two documents
    neither split is empty.
    """
    if share >= 1:
        return True
    if share <= 0 or ordinal == 0:
        return False
    if ordinal == 1:
        return True
    digest = sha256(json.dumps([seed, name, ordinal]).encode()).digest()
    return int.from_bytes(digest[:8], "big") * share.denominator < share.numerator * 2**64


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _documents(tokenizer: Tokenizer, batch: list[list[str | int]]) -> Iterator[list[int]]:
    """The token ids of each document, given as texts and the ids that stand between them."""
    encoded = _encode(tokenizer, [each for parts in batch for each in parts if type(each) is str])
    for parts in batch:
        yield list(
            chain.from_iterable(
                [each] if isinstance(each, int) else next(encoded) for each in parts
            )
        )


def _encode(tokenizer: Tokenizer, batch: list[str]) -> Iterator[list[int]]:
    """Token ids of each text, with special tokens neither added nor recognised."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = before
    return (encoding.ids for encoding in encodings)


class _Flat(NamedTuple):
    """A file of tokens: `tokens` of them from the byte `offset` on, and nothing after them."""

    path: Path
    tokens: int
    dtype: np.dtype
    offset: int = 0

    @property
    def bytes(self) -> int:
        return self.offset + self.tokens * self.dtype.itemsize


class Shards:
    """The documents of one split, memory-mapped: no memory per document.

    Args:
        folder: written by `write_shards`.
        split: `train` or `heldout`; it may have no documents.
        summary: name of the summary file.
        scattered: whether documents are read in random order, not sequentially.

    Attributes:
        documents: how many.
        tokens: how many in all documents.
        summary: the contents of the summary file.

    Raises:
        DataError: files are missing, truncated or inconsistent.
    """

    def __init__(
        self, folder: Path, split: str, summary: str = SUMMARY, *, scattered: bool = False
    ) -> None:
        self.folder = folder
        self.split = split
        self._scattered = scattered
        self._runs: np.ndarray | None = None
        try:
            self.summary = json.loads((folder / summary).read_text(encoding="utf-8"))
            part = self.summary["splits"][split]
            self.documents: int = part["documents"]
            self.tokens: int = part["tokens"]
            self._files = _flat_files(self.summary, part, folder)
            self._index = map_npy(folder / part["index"], scattered=scattered)
            self._offsets = self._index.numbers
            if "runs" in part:
                self._runs = map_npy(folder / part["runs"], scattered=scattered).numbers
                self._places = map_npy(folder / part["places"], scattered=scattered).numbers
        except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError) as error:
            raise self.damaged(str(error) or type(error).__name__) from error
        except OSError as error:
            raise unreadable(str(folder), error) from error
        self._check(part)
        # Where each file begins in all files end to end.
        self._begins = list(accumulate((file.tokens for file in self._files), initial=0))[:-1]
        self._map = lru_cache(maxsize=_MAPS_KEPT)(self._open_map)

    def _check(self, part: dict[str, Any]) -> None:
        if self._offsets.shape != (self.documents + 1,) or self._offsets.dtype != np.int64:
            raise self.damaged(f"the index {part['index']} does not have {self.documents} entries")
        if self._offsets[0] != 0 or self._offsets[-1] != self.tokens:
            raise self.damaged(f"the index {part['index']} does not end at {self.tokens} tokens")
        held = sum(file.tokens for file in self._files)
        if self._runs is None:
            if held != self.tokens:
                raise self.damaged(f"the files do not contain {self.tokens} tokens")
        elif self._runs.shape != self._places.shape or bool(len(self._runs)) != bool(self.tokens):
            raise self.damaged(f"{part['runs']} and {part['places']} do not fit each other")
        elif self.tokens and not (
            self._runs[0] == 0 <= self._places[0]
            and self._runs[-1] < self.tokens
            and self._places[-1] + self.tokens - self._runs[-1] <= held
        ):
            raise self.damaged(f"{part['places']} does not lie in the files")
        for file in self._files:
            self._check_size(file)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each document: int64, shape (documents,), held in memory."""
        return self._ascending(np.diff(self._offsets))

    def document(self, i: int) -> np.ndarray:
        """The tokens of document `i`, including bos and eos: a view of the file, read when used.

        Raises:
            IndexError: there is no such document.
            DataError: the index is damaged.
        """
        if not 0 <= i < self.documents:
            raise IndexError(f"no document {i} among {self.documents}")
        begin, end = int(self._offsets[i]), int(self._offsets[i + 1])
        if not 0 <= begin < end <= self.tokens:
            raise self.damaged("the index does not ascend")
        return self.read(begin, end - begin)

    def read(self, begin: int, count: int) -> np.ndarray:
        """`count` tokens of the split from `begin` on, all of one document: a view of the file,
        read when used."""
        if self._runs is not None:
            run = int(np.searchsorted(self._runs, begin, side="right")) - 1
            begin += int(self._places[run]) - int(self._runs[run])
        file = bisect_right(self._begins, begin) - 1
        return self._map(file).read(begin - self._begins[file], count)

    @property
    def elsewhere(self) -> bool:
        """Whether all tokens are in files outside the folder, which stay where they are."""
        return self._runs is not None and not any(
            file.path.is_relative_to(self.folder) for file in self._files
        )

    def places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where documents begin in the splits' shared files, laid end to end, and their lengths:
        int64, the shape of `numbers`."""
        assert self._runs is not None
        begins = self._offsets[numbers]
        runs = np.searchsorted(self._runs, begins, side="right") - 1
        lengths = self._offsets[numbers + 1] - begins
        return begins - self._runs[runs] + self._places[runs], lengths

    def owner(self, token: int) -> int:
        """The number of the document that contains this token of the split."""
        return int(np.searchsorted(self._offsets, token, side="right")) - 1

    def cut(self, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The documents in stretches of the split, or parts of them at the ends of a stretch.

        Args:
            begins, ends: tokens of the split: int64, shape (stretches,).

        Returns:
            firsts, lengths: where in the split each part begins, and its tokens: int64, (parts,).

        Raises:
            DataError: the index is damaged.
        """
        first = np.searchsorted(self._offsets, begins, side="right") - 1
        last = np.searchsorted(self._offsets, ends, side="left")
        firsts, lengths = [], []
        for begin, end, low, high in zip(begins, ends, first, last, strict=True):
            offsets = self._index.read(low, high + 1 - low).astype(np.int64)
            if not len(offsets):
                raise self.damaged("the index does not ascend")
            # Only the outer documents reach over the stretch.
            offsets[0], offsets[-1] = max(offsets[0], begin), min(offsets[-1], end)
            firsts.append(offsets[:-1])
            lengths.append(self._ascending(np.diff(offsets)))
        if len(firsts) == 1:  # a window of all documents: no copies of millions of numbers
            return firsts[0], lengths[0]
        return np.concatenate(firsts), np.concatenate(lengths)

    def _ascending(self, lengths: np.ndarray) -> np.ndarray:
        if len(lengths) and lengths.min() <= 0:
            raise self.damaged("the index does not ascend")
        return lengths

    def _check_size(self, file: _Flat) -> None:
        try:
            found = file.path.stat().st_size
        except OSError as error:
            raise self._lost(file, f": {error.strerror or error}") from error
        if found != file.bytes:
            raise self._lost(file, f" has {found} bytes instead of {file.bytes}")

    def _lost(self, file: _Flat, reason: str) -> DataError:
        """The error for a file of tokens that has changed."""
        if file.path.is_relative_to(self.folder):
            return self.damaged(f"{file.path.name}{reason}")
        return DataError(
            f"{file.path}{reason}; its tokens are read where they are",
            f"put it back; or, where it has moved, remove {self.folder}: the next run finds the "
            "files again that the spec names, and trains nothing twice",
        )

    def _open_map(self, number: int) -> Map:
        file = self._files[number]
        try:
            return Map(
                file.path, file.dtype, file.tokens, offset=file.offset, scattered=self._scattered
            )
        except (OSError, ValueError) as error:
            raise unreadable(str(file.path), error) from error

    def damaged(self, reason: str) -> DataError:
        """The error for files that are not as they were written."""
        return DataError(
            f"the token shards in {self.folder} are damaged: {reason}",
            "remove that folder; the next run rebuilds it from the documents",
        )


def _flat_files(summary: dict[str, Any], part: dict[str, Any], folder: Path) -> list[_Flat]:
    """The files with the tokens of a split: its own, or those that the splits share."""
    if "runs" not in part:
        dtype = np.dtype(summary["dtype"]).newbyteorder("<")
        return [_Flat(folder / file["file"], int(file["tokens"]), dtype) for file in part["files"]]
    return [
        _Flat(
            folder / file["file"],
            int(file["tokens"]),
            np.dtype(file["dtype"]).newbyteorder("<"),
            int(file["offset"]),
        )
        for file in summary["files"]
    ]
