"""Files with one JSON object per line, to which a single process appends.

Each line is written by one call, so a crash or a full disk can only tear the last one. Readers skip
a torn line; the next writer removes it first.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..disk import sync
from ..errors import RunError


class Lines:
    """Appends to a file, which the first line opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def append(self, record: Mapping[str, Any], *, durable: bool) -> None:
        """Adds a line.

        Args:
            durable: return only once the line is on disk.

        Raises: OSError: the line cannot be written; the file is unchanged.
        """
        if self._file is None:
            self._file = _opened(self.path)
        line = json.dumps(record).encode() + b"\n"
        size = os.fstat(self._file).st_size
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if durable:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _opened(path: Path) -> int:
    """Opens a file to append to, repairs its last line, and makes sure that its name is on disk."""
    new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _repair(file)
    if new:
        sync(path.parent)
    return file


def _repair(file: int) -> None:
    """Completes the last line if it only lacks its line feed; removes it if it lacks more."""
    size = os.fstat(file).st_size
    tail, start = b"", size
    while start and b"\n" not in tail:
        length = min(65_536, start)
        start -= length
        tail = os.pread(file, length, start) + tail
    last = tail.rpartition(b"\n")[2]
    if not last:
        return
    if record_of(last) is None:
        os.ftruncate(file, size - len(last))
    else:
        os.write(file, b"\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file, in order; none if the file does not exist.

    Raises: RunError: a line before the last is not a JSON object, or the file cannot be read.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as problem:
        raise RunError(f"{path} cannot be read: {problem.strerror}") from None
    for number, line in enumerate(lines, 1):
        record = record_of(line)
        if record is None:
            raise RunError(
                f"{path}:{number} is not a line of JSON that etude wrote",
                f"remove the line, keeping a copy of the file: sed -i.old {number}d {path}",
            )
        yield record
    if (record := record_of(last)) is not None:
        yield record


def record_of(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None if it has none: torn by a crash, or damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # also invalid UTF-8, and what is nested too deeply
        return None
    return record if isinstance(record, dict) else None


def is_moment(time: Any) -> bool:
    """Whether a value is a time in seconds since 1970."""
    return isinstance(time, int | float) and 0 <= time < 1e12


class Follower:
    """Reads a file while another process appends to it."""

    def __init__(self, path: Path, place: int = 0) -> None:
        self._path = path
        self._place = place

    def new(self) -> Iterator[dict[str, Any]]:
        """The lines since the last call, at first those from `place` on. A torn line comes once it
        is complete; a line that is not a JSON object is skipped."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                text = file.read()
        except FileNotFoundError:
            return
        whole, _, torn = text.rpartition(b"\n")
        self._place += len(text) - len(torn)
        for line in whole.split(b"\n"):
            if (record := record_of(line)) is not None:
                yield record


def whole_size(path: Path) -> int:
    """Repairs the last line of a file; returns the file's size in bytes. Only for its writer."""
    file = _opened(path)
    try:
        return os.fstat(file).st_size
    finally:
        os.close(file)
