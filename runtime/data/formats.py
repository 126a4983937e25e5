"""Documents in one file: JSON lines, Parquet or plain text, compressed or not.

A file's compression and format are read off its suffixes. What is wrong with a document is
counted as a bad line (see `bad_lines`); what is wrong with the disk or the network is an error.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import zstandard

from ..errors import DataError
from .bad_lines import BadLines

SUFFIXES = (".jsonl", ".ndjson", ".txt", ".jsonl.gz", ".jsonl.zst", ".txt.gz", ".txt.zst")
SUFFIXES += (".ndjson.gz", ".ndjson.zst", ".parquet")

_READ_BYTES = 1 << 20
# A few compressed bytes can hold a very long run, and each piece is decompressed whole.
_ZSTD_READ_BYTES = 1 << 16
# What `zstd --long=31` writes: the largest window that the format's tools make.
_ZSTD_WINDOW = 1 << 31
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class File:
    """One file to read.

    Attributes:
        name: as messages show it.
        open: opens it for reading bytes.
        failures: what reading it may raise when the disk or the network fails.
    """

    name: str
    open: Callable[[], IO[bytes]]
    failures: type[Exception] = OSError


class _Damaged(Exception):
    """The compressed stream ends too early or makes no sense."""


def suffix(name: str) -> str | None:
    """The one of SUFFIXES that `name` ends with, if any (upper case counts as lower)."""
    return next((known for known in SUFFIXES if name.lower().endswith(known)), None)


@dataclass(frozen=True)
class Row:
    """What a file holds at one place: a JSON object or the columns of a table's row.

    Attributes:
        place: as messages show it ("corpus/a.jsonl:17").
    """

    place: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Document:
    """A text, and where it stands, as messages show it ("corpus/a.jsonl:17")."""

    place: str
    text: str


def rows(
    file: File, bad: BadLines, *, columns: Sequence[str] | None = None, example: str = "text"
) -> Iterator[Row]:
    """Yields the records of a file of JSON lines or a Parquet file in order.

    Args:
        file: its name must end with one of SUFFIXES.
        bad: counts what cannot be used. Of a damaged compressed stream everything up to the
            damage is used, and the rest of it is one bad line. White lines between JSON lines
            are no records and no errors.
        columns: what is needed of a Parquet file; None for all columns.
        example: a field's name, for messages.

    Raises:
        DataError: too many bad lines, no such column, or the file cannot be read.
    """
    kind = suffix(file.name) or ""
    if kind.startswith(".txt"):
        raise DataError(
            f"{file.name} is a text; what has fields is read from JSON lines or Parquet",
            "narrow the pattern in `files`, or convert the file",
        )
    if kind == ".parquet":
        yield from _parquet(file, columns, bad)
    else:
        yield from _json_lines(file, example, bad)


def documents(
    file: File,
    field: str,
    bad: BadLines,
    *,
    further: Sequence[str] = (),
    keeps: Callable[[Row], bool] | None = None,
) -> Iterator[Document]:
    """Yields the documents of a file in order.

    Args:
        field: the field or column with the text (plain text has none).
        further: other fields that `keeps` looks at.
        keeps: leaves out the rows for which it is false.

    Raises: as `rows`.
    """
    if (suffix(file.name) or "").startswith(".txt") and keeps is None:
        yield from _text(file, bad)
        return
    columns = list(dict.fromkeys([field, *further]))
    for row in rows(file, bad, columns=columns, example=field):
        if field not in row.fields:
            missing(row, field, bad)
        elif keeps is None or keeps(row):
            text = bad.checked(row.fields[field], field, row.place)
            if text is not None:
                yield Document(row.place, text)


def missing(row: Row, field: str, bad: BadLines) -> None:
    """Counts a row without a field that it must have."""
    there = ", ".join(map(str, list(row.fields)[:8])) or "nothing"
    bad.report(row.place, f"no field `{field}`; there is {there}")


def unreadable(name: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(
        f"{name} cannot be read: {reason}",
        "make sure that the file is still there and that you may read it, then run again",
    )


def _json_lines(file: File, example: str, bad: BadLines) -> Iterator[Row]:
    number = 0
    try:
        for number, line in enumerate(_lines(_chunks(file)), 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            row = _json_row(line, example, bad, f"{file.name}:{number}")
            if row is not None:
                yield row
    except _Damaged as error:
        bad.report(f"{file.name}:{number + 1}", str(error))


def _json_row(line: bytes, example: str, bad: BadLines, place: str) -> Row | None:
    try:
        record: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return bad.report(place, f"not valid UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return bad.report(place, f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return bad.report(place, f"not usable JSON: {error}")
    if not isinstance(record, dict):
        return bad.report(place, f'not a JSON object such as {{"{example}": "…"}}')
    return Row(place, record)


def _text(file: File, bad: BadLines) -> Iterator[Document]:
    content = bytearray()
    try:
        for chunk in _chunks(file):
            content += chunk
        text = content.decode("utf-8-sig")
    except _Damaged as error:
        line = content.count(b"\n") + 1
        bad.report(f"{file.name}:{line}", str(error))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        bad.report(f"{file.name}:{line}", f"not valid UTF-8: {error.reason}")
    else:
        if text.strip():
            yield Document(file.name, text)
        else:
            bad.report(f"{file.name}:1", "the file is empty")


def _parquet(file: File, columns: Sequence[str] | None, bad: BadLines) -> Iterator[Row]:
    number = 0
    try:
        for number, fields in enumerate(_table(file, columns), 1):
            yield Row(f"{file.name}:{number}", fields)
    except _Damaged as error:
        bad.report(f"{file.name}:{number + 1}", str(error))


def _table(file: File, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as stream:
            parquet = pq.ParquetFile(stream)
            for column in columns or ():
                require_column(parquet.schema_arrow.names, column, file.name)
            for batch in parquet.iter_batches(_PARQUET_ROWS, columns=columns):
                yield from batch.to_pylist()
    except DataError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _Damaged(f"damaged Parquet file: {_first_line(error)}") from error
    except file.failures as error:
        # Arrow reports damage inside a file as an OSError that carries no error number.
        if isinstance(error, OSError) and error.errno is None:
            raise _Damaged(f"damaged Parquet file: {_first_line(error)}") from error
        raise unreadable(file.name, error) from error


def require_column(there: Sequence[str], column: str, name: str) -> None:
    """Raises: DataError: a table lacks a column."""
    if column not in there:
        raise DataError(
            f"{name} has no column `{column}`; there is {', '.join(there) or 'none'}",
            'name the column in the dataset, as in `fields = { text = "content" }`',
        )


def _chunks(file: File) -> Iterator[bytes]:
    """The file's content, decompressed, in pieces."""
    unpack = {"gz": _gzip_chunks, "zst": _zstd_chunks}.get(file.name.lower().rpartition(".")[2])
    try:
        with file.open() as stream:
            if unpack is not None:
                yield from unpack(stream)
            else:
                while chunk := stream.read(_READ_BYTES):
                    yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _Damaged(f"damaged gzip stream: {_first_line(error)}") from error
    except zstandard.ZstdError as error:
        raise _Damaged(f"damaged zstd stream: {_first_line(error)}") from error
    except file.failures as error:
        raise unreadable(file.name, error) from error


def _gzip_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream) as unpacked:
        # Unlike `read`, `read1` gives away what it has before it meets damage.
        while chunk := unpacked.read1(_READ_BYTES):
            yield chunk


def _zstd_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Decompresses all frames; zstandard's own stream reader takes a truncated one for whole."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = None
    while packed := stream.read(_ZSTD_READ_BYTES):
        while packed:
            frame = frame or unpacker.decompressobj()
            chunk = frame.decompress(packed)
            packed = b""
            if frame.eof:
                packed, frame = frame.unused_data, None
            if chunk:
                yield chunk
    if frame is not None:
        raise zstandard.ZstdError("the file ends inside a frame")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Splits at line feeds alone; a last line without one is a line too."""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    if last := b"".join(begun):
        yield last


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
