"""Existing tokens: checked in units, and used in place.

A unit is a stretch of a file, or several small files. All its ids are checked, and, if documents
end with the end-of-text token, its result is the places of these tokens. Together the units become
shards without tokens of their own (see `placed`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...compiler.plan.plan import DatasetJob
from ..data.reading.stretches import LARGE, SMALL
from ..data.tokens import token_files
from ..data.tokens.placed import Places, write_placed
from ..data.tokens.shards import kinds
from ..data.tokens.token_files import Source, Vocabulary
from ..data.tokens.tokenizer import special
from ..errors import DataError
from ..run_folder.recorder import OnEvent
from .units import Stop, each

_LOOKED = 16
"""Documents in each piece of an index whose first and last tokens are inspected."""
_MOST_LOOKED = 4096


@dataclass(frozen=True)
class Range:
    """Tokens of a file from `first` up to `last`."""

    file: int
    first: int
    last: int


@dataclass(frozen=True)
class Tokens:
    """Checks the tokens of files in units; see `Task`."""

    files: tuple[Source, ...]
    ranges: tuple[tuple[Range, ...], ...]
    vocab: Vocabulary

    def __len__(self) -> int:
        return len(self.ranges)

    def identity(self, number: int) -> Any:
        return [[self.files[of.file].name, of.first, of.last] for of in self.ranges[number]]

    def bytes(self, number: int) -> int | None:
        return sum(
            (of.last - of.first) * self.files[of.file].dtype.itemsize for of in self.ranges[number]
        )

    def make(self, number: int, folder: Path, stop: Stop) -> dict[str, Any] | None:
        ends: list[int] = []
        with (folder / "ends").open("wb") as out:
            for of in self.ranges[number]:
                file = self.files[of.file]
                count = 0
                for first, piece in file.read(of.first, of.last):
                    self.vocab.check(file, first, piece)
                    if file.index is None:
                        found = first + np.flatnonzero(piece == self.vocab.eos) + 1
                        out.write(found.astype("<i8").data)
                        count += len(found)
                    if stop():
                        return None
                ends.append(count)
        tokens = sum(of.last - of.first for of in self.ranges[number])
        return {"documents": sum(ends), "tokens": tokens, "ends": ends}

    def sizes(self, unit: Mapping[str, Any]) -> dict[str, int]:
        return {"ends": 8 * unit["documents"]}


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Raises: DataError: it has no end-of-text token.
    """
    said = kinds(tokenizer)["extra"]()
    return Vocabulary(said["vocab"], said["eos"])


def tokens_of(job: DatasetJob, tokenizer: Tokenizer, root: Path) -> Tokens:
    """The task that checks the tokens of a data set.

    Raises: DataError: there are none, or files cannot be used.
    """
    vocab = vocabulary(tokenizer)
    files = tuple(token_files.sources(job.source, root, vocab))
    ranges: list[tuple[Range, ...]] = []
    taken = SMALL
    for number, file in enumerate(files):
        size = file.tokens * file.dtype.itemsize
        if size < SMALL and taken + size <= SMALL:
            ranges[-1] += (Range(number, 0, file.tokens),)
            taken += size
            continue
        step = LARGE // file.dtype.itemsize
        begins = range(0, max(file.tokens, 1), step)
        ranges += [(Range(number, n, min(n + step, file.tokens)),) for n in begins]
        taken = size if size < SMALL else SMALL
    return Tokens(files, tuple(ranges), vocab)


def join(
    task: Tokens, job: DatasetJob, tokenizer: Tokenizer, folder: Path, on_event: OnEvent
) -> dict[str, Any]:
    """Writes shards without tokens into `folder/result`.

    Returns: the contents of `shards.json`.
    Raises:
        DataError: there are no documents, or their borders cannot be used.
        OSError: writing failed.
    """
    ends = _Ends(task, folder, job.id)
    look = _Look(task, tokenizer)
    known = kinds(tokenizer)
    dtype = np.result_type(*{file.dtype for file in task.files})
    summary = write_placed(
        look.at(chosen(_all_places(task.files, ends.of), job.source)),
        [file.placed for file in task.files],
        folder / "result",
        dtype=dtype,
        extra=known["extra"],
        holdout=Fraction(job.holdout),
        seed=job.seed,
        name=job.name,
    )
    for message in look.notes(job.name):
        on_event({"event": "note", "message": message})
    return summary


def first_documents(
    source: Mapping[str, Any], root: Path, tokenizer: Tokenizer, most: int
) -> tuple[list[Source], list[Places], bool]:
    """The first documents of a source of tokens, at least one, with about `most` tokens.

    Returns: all files; the documents; and whether these are all.
    Raises: DataError: there are none, or files cannot be used.
    """
    vocab = vocabulary(tokenizer)
    files = token_files.sources(source, root, vocab)
    found: list[Places] = []
    taken = 0
    for places in chosen(_all_places(files, lambda number: _scanned(files[number], vocab)), source):
        found.append(places)
        taken += int(places.lengths.sum())
        if taken >= most:
            return files, found, False
    return files, found, True


def _scanned(file: Source, vocab: Vocabulary) -> Iterator[np.ndarray]:
    for first, piece in file.read(0, file.tokens):
        vocab.check(file, first, piece)
        yield first + np.flatnonzero(piece == vocab.eos) + 1


def _all_places(files: Iterable[Source], ends: Any) -> Iterator[Places]:
    """The documents of all files, with their places in the files laid end to end.

    Args:
        ends: for the number of a file without an index, returns where its documents end, in pieces.
    """
    before = 0
    for number, file in enumerate(files):
        if file.index is not None:
            found = token_files.borders(file)
        else:
            found = token_files.from_ends(file, _with_the_rest(file, ends(number)))
        for places in found:
            yield Places(before + places.begins, places.lengths)
        before += file.tokens


def _with_the_rest(file: Source, ends: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Ends of documents, including the end of the rest after the last end-of-text token."""
    last = 0
    for piece in ends:
        if len(piece):
            yield piece
            last = int(piece[-1])
    if not last and file.tokens:
        raise DataError(
            f"{file.name} holds {file.tokens:,} tokens without any end-of-text token, so that "
            "nothing says where its documents end",
            "name the tokenizer that the tokens were made with, whose end of text it is; or put "
            "the borders of documents beside it, as a line `first,end` for each in a .csv.gz",
        )
    if last < file.tokens:
        yield np.array([file.tokens])


class _Ends:
    """Where documents end in files without an index, according to their units."""

    def __init__(self, task: Tokens, folder: Path, job: str) -> None:
        self._task = task
        self._units = each(task, folder, job)
        self._pieces = self._all()
        self._next = next(self._pieces, None)

    def _all(self) -> Iterator[tuple[int, np.ndarray]]:
        for number, (path, unit) in enumerate(self._units):
            with (path / "ends").open("rb") as file:
                for of, count in zip(self._task.ranges[number], unit["ends"], strict=True):
                    yield of.file, np.fromfile(file, "<i8", count).astype(np.int64)

    def of(self, number: int) -> Iterator[np.ndarray]:
        """The ends in a file; call it for the files in order."""
        while self._next is not None and self._next[0] <= number:
            if self._next[0] == number:
                yield self._next[1]
            self._next = next(self._pieces, None)


def chosen(batches: Iterable[Places], source: Mapping[str, Any]) -> Iterator[Places]:
    """The documents of a data set: those within its `skip` and `documents`, of the selected
    hands."""
    skip, most = source.get("skip", 0), source.get("documents")
    hands, first, last = source.get("deal") or (1, 1, 1)
    count = 0
    for places in batches:
        numbers = count + np.arange(len(places.lengths)) - skip
        count += len(numbers)
        keep = numbers >= 0
        if most is not None:
            keep &= numbers < most
        # As for texts: dealing starts at the first document that is not skipped.
        turn = numbers % hands + 1
        keep &= (first <= turn) & (turn <= last)
        if keep.any():
            yield Places(places.begins[keep], places.lengths[keep])
        if most is not None and count >= skip + most:
            return


class _Look:
    """Inspects the first and last tokens of some documents as they pass."""

    def __init__(self, task: Tokens, tokenizer: Tokenizer) -> None:
        self._files = task.files
        self._begins = np.cumsum([0, *(file.tokens for file in task.files)])
        self._ids = special(tokenizer)
        self._tokenizer = tokenizer
        self._looked = self._begun = self._ended = 0

    def at(self, batches: Iterable[Places]) -> Iterator[Places]:
        for places in batches:
            count = len(places.lengths) if self._looked < _MOST_LOOKED else 0
            for number in {
                n * (count - 1) // max(_LOOKED - 1, 1) for n in range(min(_LOOKED, count))
            }:
                begin, length = int(places.begins[number]), int(places.lengths[number])
                self._looked += 1
                self._begun += self._token(begin) == self._ids.bos
                self._ended += self._token(begin + length - 1) == self._ids.eos
            yield places

    def _token(self, place: int) -> int:
        number = int(np.searchsorted(self._begins, place, side="right")) - 1
        within = place - int(self._begins[number])
        (_, piece) = next(self._files[number].read(within, within + 1))
        return int(piece[0])

    def notes(self, name: str) -> Iterator[str]:
        """What the tokenizer expects, but a model would not learn from the documents."""
        for wanted, found, does in (
            (self._ids.eos, self._ended, "end"),
            (self._ids.bos, self._begun, "begin"),
        ):
            if wanted is not None and 2 * found < self._looked:
                token = self._tokenizer.id_to_token(wanted)
                yield (
                    f"of {self._looked} documents of `{name}` that were looked at, {found} {does} "
                    f"with `{token}`, the token with which the tokenizer {does}s texts; they are "
                    "taken as they are"
                )
