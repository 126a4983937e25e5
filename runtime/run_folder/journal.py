"""The journal of a run folder: the history of jobs, in `journal.jsonl`.

Earlier versions used a SQLite file, which is unsafe if several hosts share a folder.
"""

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..disk import move, write
from ..errors import RunError
from . import json_lines

JOURNAL = "journal.jsonl"
_NAMES = ("time", "job", "key", "event", "detail")
_SQLITE = "journal.sqlite"
_SET_ASIDE = "journal.sqlite.converted"
_OLD_LOCK = "lock"


class Journal:
    """The journal of one run folder; one process at a time appends to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._old = folder / _SQLITE
        self._lines = json_lines.Lines(self.path)

    def exists(self) -> bool:
        """Whether a journal exists, of this version or of an earlier one."""
        return self.path.is_file() or self._old.is_file()

    def create(self) -> str | None:
        """Creates the journal if there is none, from an earlier version's if there is one.

        Returns: what was done, if the user should know.
        Raises:
            OSError: the folder cannot be written.
            RunError: an earlier version is running in the folder, or its journal is damaged.
        """
        if self.path.is_file():
            return None
        if not self._old.is_file():
            self.path.touch()
            return None
        with _no_earlier_version(self.path.with_name(_OLD_LOCK)):
            rows = self._rows()
            write(self.path, "".join(json.dumps(row) + "\n" for row in rows))
            move(self._old, self._old.with_name(_SET_ASIDE))
        return (
            f"converted the journal of an earlier version of etude, {len(rows):,} lines, to "
            f"{self.path}; {_SET_ASIDE} next to it is the original"
        )

    def record(self, job: str, key: str, event: str, detail: Any) -> None:
        """Adds a line; it is on disk when this returns.

        Raises: OSError: the disk is full or broken.
        """
        row = (time.time(), job, key, event, detail)
        self._lines.append(dict(zip(_NAMES, row, strict=True)), durable=True)

    def events(self) -> list[dict[str, Any]]:
        """The lines, oldest first.

        Raises: RunError: a line before the last is damaged.
        """
        if not self.path.is_file() and self._old.is_file():
            return self._rows()
        found = []
        for number, row in enumerate(json_lines.read(self.path), 1):
            if not _is_line(row):
                raise RunError(
                    f"{self.path}:{number} is not a line of a journal",
                    f"remove it, keeping a copy of the file: sed -i.old {number}d {self.path}",
                )
            found.append(row)
        return found

    def _rows(self) -> list[dict[str, Any]]:
        """The lines of an earlier version's journal.

        Raises: RunError: it cannot be read.
        """
        try:
            with closing(sqlite3.connect(self._old, timeout=30)) as old:
                rows = old.execute(f"select {', '.join(_NAMES)} from events").fetchall()
        except sqlite3.Error as problem:
            raise RunError(
                f"the journal {self._old} cannot be read: {problem}",
                "restore it from a copy, or remove it: finished results are found without it",
            ) from None
        return [
            dict(zip(_NAMES, row, strict=True)) | {"detail": json.loads(row[4] or "null")}
            for row in rows
        ]


def _is_line(row: dict[str, Any]) -> bool:
    """Whether an object has the form of a line of a journal."""
    if set(row) != set(_NAMES) or not json_lines.is_moment(row["time"]):
        return False
    names = (row["job"], row["key"], row["event"])
    if not all(isinstance(name, str) for name in names) or not _is_key(row["key"]):
        return False
    detail = row["detail"]
    wanted = {"rollback": ("number", "step", "to"), "spike": ("step",)}.get(row["event"], ())
    if detail is None:
        return not wanted
    if not isinstance(detail, dict) or not isinstance(detail.get("plan", ""), str):
        return False
    return all(isinstance(detail.get(name), int) for name in wanted)


def _is_key(key: str) -> bool:
    """Whether a key can be the name of a folder in `artifacts`."""
    return 0 < len(key) <= 100 and key.isprintable() and "/" not in key and key not in (".", "..")


@contextmanager
def _no_earlier_version(lock: Path) -> Iterator[None]:
    """Keeps out runs of earlier versions, which lock a file; `lease` keeps out this version's."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"a run of an earlier version of etude is using {lock.parent}",
                "wait for it, or choose another folder with --folder",
            ) from None
        yield
    lock.unlink(missing_ok=True)
