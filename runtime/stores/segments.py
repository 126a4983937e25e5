"""Stores growing files as segments, since objects in a store cannot grow.

Segment N of a file is its bytes from N × 256 KiB on. All but the last are complete, and never
rewritten as long as the file only grows. For example, a line of 300 bytes every 5 seconds for 30
days makes 155 MB, or 590 objects; uploaded every 15 seconds, that is 22 GB a month. As one object
it would be 13 TB.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from .objects import Bucket, Object

SEGMENT = 1 << 18
SUFFIX = ".segments"
_NAME = re.compile(r"(?P<file>.+)\.segments/(?P<number>\d{6})")


def name_of(file: str, number: int) -> str:
    """The object name of a segment."""
    return f"{file}{SUFFIX}/{number:06}"


def files_in(objects: Mapping[str, Object]) -> dict[str, list[str]]:
    """The files stored in segments → their objects, in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(objects):
        if match := _NAME.fullmatch(name):
            found.setdefault(match["file"], []).append(name)
    return found


class Growing:
    """A file, and what the store has of it."""

    def __init__(self, bucket: Bucket, name: str, path: Path) -> None:
        self._bucket = bucket
        self._name = name
        self._path = path
        self._sent: list[bytes] = []
        self._size = 0
        self._seen: tuple[int, int] | None = None

    def known(self, content: bytes) -> None:
        """Records what the store has."""
        self._sent = [_digest(content[at : at + SEGMENT]) for at in range(0, len(content), SEGMENT)]
        self._size = len(content)

    def send(self, *, rewritten: bool) -> None:
        """Sends what is new, in order.

        Args:
            rewritten: whether the file may have changed before its end.

        Raises: StoreError.
        """
        try:
            stat = self._path.stat()
            seen = stat.st_size, stat.st_mtime_ns
            if seen == self._seen:
                return
            whole = rewritten or stat.st_size < self._size
            first = 0 if whole else max(len(self._sent) - 1, 0)
            with self._path.open("rb") as file:
                file.seek(first * SEGMENT)
                content = file.read()
        except FileNotFoundError:
            return
        count = -(-(first * SEGMENT + len(content)) // SEGMENT)
        gone = [name_of(self._name, number) for number in range(count, len(self._sent))]
        # From the end, so that the store has a prefix of the file at any time.
        for name in reversed(gone):
            self._bucket.remove([name])
        del self._sent[count:]
        for number in range(first, count):
            part = content[(number - first) * SEGMENT :][:SEGMENT]
            digest = _digest(part)
            if number < len(self._sent) and self._sent[number] == digest:
                continue
            self._bucket.write(name_of(self._name, number), part)
            self._sent[number : number + 1] = [digest]
        self._size = first * SEGMENT + len(content)
        self._seen = seen


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
