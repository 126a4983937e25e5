"""Documents in one file: JSON lines, Parquet or plain text, compressed or not.

A file's compression and format are read off its suffixes. What is wrong with a document is
counted as a bad line (see `bad_lines`); what is wrong with the disk or the network is an error.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
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


def documents(file: File, field: str, bad: BadLines) -> Iterator[str]:
    """Yields the texts of a file in order.

    Args:
        file: its name must end with one of SUFFIXES.
        field: the field or column with the text (plain text has none).
        bad: counts what cannot be used. Of a damaged compressed stream everything up to the
            damage is used, and the rest of it is one bad line. White lines between JSON lines
            are no documents and no errors.

    Raises:
        DataError: too many bad lines, no such column, or the file cannot be read.
    """
    kind = suffix(file.name) or ""
    if kind == ".parquet":
        yield from _parquet(file, field, bad)
    elif kind.startswith(".txt"):
        yield from _text(file, bad)
    else:
        yield from _json_lines(file, field, bad)


def unreadable(name: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(
        f"{name} cannot be read: {reason}",
        "make sure that the file is still there and that you may read it, then run again",
    )


def _json_lines(file: File, field: str, bad: BadLines) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(_lines(_chunks(file)), 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            text = _json_text(line, field, bad, f"{file.name}:{number}")
            if text is not None:
                yield text
    except _Damaged as error:
        bad.report(f"{file.name}:{number + 1}", str(error))


def _json_text(line: bytes, field: str, bad: BadLines, place: str) -> str | None:
    try:
        record: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return bad.report(place, f"not valid UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return bad.report(place, f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return bad.report(place, f"not usable JSON: {error}")
    if not isinstance(record, dict):
        return bad.report(place, f'not a JSON object such as {{"{field}": "…"}}')
    if field not in record:
        there = ", ".join(map(str, list(record)[:8])) or "nothing"
        return bad.report(place, f"no field `{field}`; there is {there}")
    return bad.checked(record[field], field, place)


def _text(file: File, bad: BadLines) -> Iterator[str]:
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
            yield text
        else:
            bad.report(f"{file.name}:1", "the file is empty")


def _parquet(file: File, field: str, bad: BadLines) -> Iterator[str]:
    row = 0
    try:
        for row, value in enumerate(_column(file, field), 1):
            text = bad.checked(value, field, f"{file.name}:{row}")
            if text is not None:
                yield text
    except _Damaged as error:
        bad.report(f"{file.name}:{row + 1}", str(error))


def _column(file: File, field: str) -> Iterator[object]:
    """The values of one column of a Parquet file, row by row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as stream:
            parquet = pq.ParquetFile(stream)
            _require_text_column(parquet.schema_arrow, field, file.name)
            for batch in parquet.iter_batches(_PARQUET_ROWS, columns=[field]):
                yield from batch.column(0).to_pylist()
    except DataError:
        raise
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _Damaged(f"damaged Parquet file: {_first_line(error)}") from error
    except file.failures as error:
        # Arrow reports damage inside a file as an OSError that carries no error number.
        if isinstance(error, OSError) and error.errno is None:
            raise _Damaged(f"damaged Parquet file: {_first_line(error)}") from error
        raise unreadable(file.name, error) from error


def _require_text_column(schema: Any, field: str, name: str) -> None:
    if field not in schema.names:
        raise DataError(
            f"{name} has no column `{field}`; there is {', '.join(schema.names) or 'none'}",
            'name the column with the text in the dataset, as in `fields = { text = "content" }`',
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
