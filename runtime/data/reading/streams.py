"""Files as streams of bytes and lines, decompressed, with one error for damaged content."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, cast

import zstandard

from ....compiler.files.store_errors import why
from ....compiler.files.urls import in_store, shown
from ...errors import DataError

_READ_BYTES = 1 << 20
# A few compressed bytes can hold a very long run, and each piece is decompressed whole: at most
# 128 KiB for each four bytes.
_ZSTD_READ_BYTES = 1 << 13
# The window of `zstd --long=31`, the largest that the format's tools use.
_ZSTD_WINDOW = 1 << 31
LONGEST = 1 << 28
"""Bytes of a line. Longer ones are no records."""
RATIO = 500
"""How many times its size a compressed file may have unpacked, beyond `LONGEST`. Texts have up to a
hundred times their size; zeros, made to fill a memory, a thousand times with gzip, and thirty
thousand times with zstd."""


@dataclass(frozen=True)
class File:
    """One file to read.

    Attributes:
        name: as messages show it.
        open: opens it for reading bytes.
        failures: exceptions that reading may raise when the disk or the network fails.
        size: in bytes; None if unknown.
    """

    name: str
    open: Callable[[], IO[bytes]]
    failures: type[Exception] = OSError
    size: int | None = None


class Damaged(Exception):
    """The compressed stream ends too early or is invalid."""


def unreadable(name: str, error: Exception) -> DataError:
    """The error for a file that cannot be read; for object stores, with the reason."""
    if in_store(name):
        reason = why(name, error)
        return DataError(f"{shown(name)} cannot be read: {reason.text}", reason.help)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(
        f"{name} cannot be read: {reason}",
        "make sure that the file still exists and that you may read it, then run again",
    )


def chunks(file: File) -> Iterator[bytes]:
    """The file's content, decompressed, in pieces."""
    unpack = {"gz": _gzip_chunks, "zst": _zstd_chunks}.get(file.name.lower().rpartition(".")[2])
    try:
        with file.open() as stream:
            if unpack is not None:
                packed, size = _Counted(stream), 0
                for chunk in unpack(packed):
                    size += len(chunk)
                    if size > max(LONGEST, RATIO * packed.count):
                        raise Damaged(f"it unpacks to more than {RATIO:,} times its size")
                    yield chunk
            else:
                while chunk := stream.read(_READ_BYTES):
                    yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Damaged(f"damaged gzip stream: {first_line(error)}") from error
    except zstandard.ZstdError as error:
        raise Damaged(f"damaged zstd stream: {first_line(error)}") from error
    except file.failures as error:
        raise unreadable(file.name, error) from error


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.count += len(found)
        return found


def _gzip_chunks(stream: _Counted) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=cast(IO[bytes], stream), mode="rb") as unpacked:
        # Unlike `read`, `read1` returns the data before the damage.
        while chunk := unpacked.read1(_READ_BYTES):
            yield chunk


def _zstd_chunks(stream: _Counted) -> Iterator[bytes]:
    """Decompresses all frames; zstandard's own stream reader accepts a truncated one."""
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


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Splits only at line feeds; a last line without one counts too.

    Raises: Damaged: a line is longer than `LONGEST`.
    """
    begun: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if size > LONGEST:
            raise Damaged(f"a line has more than {LONGEST >> 20} MiB")
        if others:
            size = len(others[-1])
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    if last := b"".join(begun):
        yield last


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
