"""Token ids made by other programs, used in place: files, and the documents in them.

`compiler/files/token_files.py` describes the layouts.
"""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.files import token_files as headers
from ...errors import DataError
from ..reading import readers
from ..reading.streams import unreadable
from .maps import Map
from .placed import Places, TokenFile

_RAW = ("uint16", "uint32")
_DOCUMENTS = 1 << 18
"""Documents whose borders are read at once."""
_READ = 1 << 22
"""Tokens that are checked at once."""
_PAGE = 1 << 16
_PAGES = 64


@dataclass(frozen=True)
class Source:
    """A file of tokens.

    Attributes:
        name: as messages show it.
        index: the file of the documents' borders; None if they end with the end-of-text token.
    """

    name: str
    path: Path
    layout: str
    dtype: np.dtype
    offset: int
    tokens: int
    index: Path | None

    @property
    def placed(self) -> TokenFile:
        return TokenFile(str(self.path), self.tokens, self.dtype.name, self.offset)

    def read(self, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
        """Its tokens in pieces, each with the number of its first token.

        Raises: DataError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset + first * self.dtype.itemsize)
                while first < last:
                    piece = np.fromfile(file, self.dtype, min(_READ, last - first))
                    if not len(piece):
                        raise DataError(f"{self.name} has become shorter", "run again")
                    yield first, piece
                    first += len(piece)
        except OSError as error:
            raise unreadable(self.name, error) from error


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary that tokens are checked against.

    Attributes:
        size: ids are below it.
        eos: the id of the end-of-text token.
    """

    size: int
    eos: int

    def check(self, file: Source, first: int, piece: np.ndarray) -> None:
        """Raises: DataError: an id is not in the tokenizer's vocabulary."""
        wrong = piece >= self.size
        if piece.dtype.kind == "i":
            wrong |= piece < 0
        if not wrong.any():
            return
        place = int(wrong.argmax())
        raise DataError(
            f"{file.name}: token {first + place:,} (counted from 0) is {int(piece[place])}, and "
            f"the ids of the tokenizer end at {self.size - 1}",
            "name the tokenizer that the tokens were made with"
            + (
                f"; or, if these are no {file.dtype.name} numbers, say so with `layout`"
                if file.layout in _RAW
                else ""
            ),
        )

    def require_room(self, file: Source) -> None:
        """Raises: DataError: the file's token type cannot hold all ids."""
        most = int(np.iinfo(file.dtype).max)
        if self.size - 1 > most:
            raise DataError(
                f"{file.name} holds {file.dtype.name} numbers, up to {most:,}, and the ids of the "
                f"tokenizer go up to {self.size - 1:,}: its tokens were made with another one",
                "name that tokenizer, or make the tokens again with 32 bits",
            )


def sources(source: Mapping[str, Any], root: Path, vocab: Vocabulary | None = None) -> list[Source]:
    """The token files of a data set, ordered by name.

    Args:
        source: `{"kind": "tokens", "tokens": [patterns], "layout": name or null}`.
        vocab: tells 16 from 32 bits in files that do not say; without it they count as 16 bits.

    Raises: DataError: there are none, or they cannot be used.
    """
    found: list[Source] = []
    for name, path in _matched(source["tokens"], root):
        try:
            head = headers.header(path, name, source.get("layout"))
        except headers.Unusable as problem:
            raise DataError(problem.message, problem.help) from None
        except OSError as error:
            raise unreadable(name, error) from error
        dtype = np.dtype(head.dtype or _raw_dtype(path, head.bytes, vocab)).newbyteorder("<")
        tokens = (head.bytes - head.offset) // dtype.itemsize
        layout = dtype.name if head.layout == "raw" else head.layout
        file = Source(name, path, layout, dtype, head.offset, tokens, head.beside)
        if found and _kind(found[0]) != _kind(file):
            raise DataError(
                f"{found[0].name} is of the layout `{_kind(found[0])}`, and {name} of "
                f"`{_kind(file)}`",
                "write a data set for each layout, and mix them in the stage",
            )
        if vocab is not None:
            vocab.require_room(file)
        found.append(file)
    return found


def _kind(file: Source) -> str:
    return file.layout if file.layout in ("megatron", "datatrove") else f"{file.dtype.name} ids"


def _matched(patterns: Sequence[str], root: Path) -> list[tuple[str, Path]]:
    found: dict[str, tuple[str, Path]] = {}
    for pattern in patterns:
        if "://" in pattern:
            raise DataError(
                f"`{pattern}` is a URL, and tokens are read where they are, through memory maps",
                "mount it as a folder, or download it",
            )
        matches = readers.find_local(pattern, root, "tokenized")
        for full, file in matches.items():
            if not headers.is_beside(file.name):
                found[full] = (file.name, Path(full))
        if all(headers.is_beside(file.name) for file in matches.values()):
            raise DataError(
                f"`{pattern}` names no tokens, but what lies beside them",
                "name the files of the tokens: *.bin, *.npy or *.ds",
            )
    return [found[key] for key in sorted(found)]


def _raw_dtype(path: Path, size: int, vocab: Vocabulary | None) -> str:
    """16 or 32 bits. Two 16-bit ids, read as one 32-bit id, are too large for a vocabulary, except
    the smallest."""
    if vocab is None or size % 4:
        return "uint16"
    with path.open("rb") as file:
        for place in _spread(size, _PAGE):
            file.seek(place)
            if (np.fromfile(file, "<u4", _PAGE // 4) >= vocab.size).any():
                return "uint16"
    return "uint32"


def _spread(size: int, page: int) -> Iterator[int]:
    """Where up to `_PAGES` pages begin: the first, the last, and others at equal distances."""
    pages = max(-(-size // page), 1)
    for number in range(min(pages, _PAGES)):
        yield (number * (pages - 1) // max(min(pages, _PAGES) - 1, 1)) * page


def digest(source: Mapping[str, Any], root: Path) -> str:
    """A digest of names, sizes, and up to 64 pages of 64 KiB of each file and of its index.

    It detects files that are truncated, replaced, or made again with another tokenizer or order. It
    does not detect every change of single tokens in a file of more than 4 MiB.

    Raises: DataError: a file cannot be read.
    """
    found = sha256(str(source.get("layout")).encode())
    for file in sources(source, root):
        found.update(file.name.encode())
        for path in filter(None, (file.path, file.index)):
            try:
                with path.open("rb") as stream:
                    size = stream.seek(0, 2)
                    found.update(str(size).encode())
                    for place in _spread(size, _PAGE):
                        stream.seek(place)
                        found.update(stream.read(_PAGE))
            except OSError as error:
                raise unreadable(str(path), error) from error
    return found.hexdigest()


def sample(file: Source, vocab: Vocabulary) -> None:
    """Checks some pages of a file, spread as far apart as possible.

    Raises: DataError: an id is not one of the tokenizer's.
    """
    count = _PAGE // file.dtype.itemsize
    for first in _spread(file.tokens, count):
        for begin, piece in file.read(first, min(first + count, file.tokens)):
            vocab.check(file, begin, piece)


def borders(file: Source) -> Iterator[Places]:
    """The documents of a file with an index; those without tokens are left out.

    Returns: their places in the file.
    Raises: DataError: the index does not fit the file.
    """
    assert file.index is not None
    ways = {"megatron": _megatron, "datatrove": _datatrove}
    try:
        yield from from_ends(file, ways.get(file.layout, _table)(file, file.index))
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(file, f"is damaged: {error}") from error
    except (OSError, ValueError) as error:
        raise unreadable(str(file.index), error) from error


def from_ends(file: Source, ends: Iterable[np.ndarray]) -> Iterator[Places]:
    """Consecutive documents, from where each ends; int64, in pieces."""
    last = 0
    for piece in ends:
        if not len(piece):
            continue
        lengths = np.diff(piece, prepend=last)
        if lengths.min() < 0 or int(piece[-1]) > file.tokens:
            number = int(piece[-1]) if lengths.min() >= 0 else int(piece[lengths.argmin()])
            raise _wrong(file, f"has a border at token {number:,}, behind the end or out of order")
        yield Places((piece - lengths)[lengths > 0], lengths[lengths > 0])
        last = int(piece[-1])
    if last != file.tokens:
        raise _wrong(file, f"ends at token {last:,}")


def _wrong(file: Source, what: str) -> DataError:
    index = file.index.name if file.index else "its index"
    return DataError(
        f"{index}, the index of {file.name} with its {file.tokens:,} tokens, {what}",
        "copy both files again, or make the tokens again",
    )


def _datatrove(file: Source, index: Path) -> Iterator[np.ndarray]:
    yield from _numbers(index, "<i8", index.stat().st_size // 8, 0)


def _numbers(path: Path, dtype: str, count: int, offset: int) -> Iterator[np.ndarray]:
    numbers = Map(path, np.dtype(dtype), count, offset=offset).numbers
    for first in range(0, count, _DOCUMENTS):
        yield numbers[first : first + _DOCUMENTS].astype(np.int64)


def _megatron(file: Source, index: Path) -> Iterator[np.ndarray]:
    with index.open("rb") as stream:
        stream.seek(18)
        sequences, entries = np.fromfile(stream, "<i8", 2).tolist()
    begin = headers.IDX_HEAD
    lengths = Map(index, np.dtype("<i4"), sequences, offset=begin).numbers
    pointers = Map(index, np.dtype("<i8"), sequences, offset=begin + 4 * sequences).numbers
    documents = _numbers(index, "<i8", entries, begin + 12 * sequences)
    size = file.dtype.itemsize
    read = end = 0
    for piece in documents:
        if np.diff(piece, prepend=read).min() < 0 or int(piece[-1]) > sequences:
            raise _wrong(
                file, f"names a sequence that is not there, or out of order, by document {entries}"
            )
        last = int(piece[-1])
        taken = lengths[read:last].astype(np.int64)
        begins = end + np.cumsum(taken) - taken
        if len(taken) and (taken.min() < 0 or (begins * size != pointers[read:last]).any()):
            raise _wrong(file, "has sequences that do not follow one another")
        sums = np.concatenate([[end], begins + taken])
        yield sums[piece - read]
        read, end = last, int(sums[-1])
    if read != sequences:
        raise _wrong(file, f"has {sequences - read:,} sequences that belong to no document")


def _table(file: Source, index: Path) -> Iterator[np.ndarray]:
    last = 0
    with gzip.open(index, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        number = 0
        while some := list(islice(rows, _DOCUMENTS)):
            try:
                found = np.array([row[:2] for row in some if row], np.int64).reshape(-1, 2)
            except ValueError:
                raise _wrong(file, f"has no two numbers in a line from {number + 1} on") from None
            before = np.concatenate([[last], found[:-1, 1]])
            if (found[:, 0] != before).any():
                wrong = int((found[:, 0] != before).argmax())
                raise _wrong(
                    file,
                    f"begins the document of line {number + wrong + 1} at token "
                    f"{found[wrong, 0]:,}, where the one before ends at {before[wrong]:,}",
                )
            yield found[:, 1]
            number, last = number + len(some), int(found[-1, 1])
