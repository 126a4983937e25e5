"""The run folder: all durable state of a run, and the rule by which artifacts come to exist.

    plan.json        the plan that was last run in the folder
    journal.jsonl    what became of jobs, and when: a line each, appended by rank 0
    events.jsonl     progress, step by step: a line each, with its `time`, appended by rank 0
    lease.json       who is at work in the folder, while someone is
    artifacts/KEY/   results of jobs, each with its manifest (sizes and checksums)
    work/KEY/        a job in progress: its checkpoints
    log              what libraries and processes of the run print
    logs/rank-N.log  what rank N of gangs prints and logs, one start after the other
    metrics/         one file of JSON lines a train job
    models/STAGE     the results of stages, as links to artifacts
    cache/           what can be recomputed

An artifact is assembled in `work`, its manifest included, and renamed into place at once: it is
there completely or not at all.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RunError, Stopped, reason

MANIFEST = "manifest.json"
JOURNAL = "journal.sqlite"
LOG = "log"
"""The file with what libraries and processes of a run print."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    """Artifacts and journal of a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Makes the folder and its journal where they are not there.

        Raises: RunError: the folder cannot be written.
        """
        try:
            for name in ("artifacts", "work", "metrics", "models", "cache"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            with self._journal() as journal:
                journal.execute("pragma journal_mode = wal")
                journal.execute(
                    "create table if not exists events "
                    "(time real, job text, key text, event text, detail text)"
                )
        except (OSError, sqlite3.Error) as problem:
            raise RunError(
                f"the run folder {self.folder} cannot be used: {reason(problem)}",
                "choose another with --folder",
            ) from None

    def exists(self) -> bool:
        """Whether something has been run in the folder."""
        return (self.folder / JOURNAL).is_file()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other runs out of the folder.

        Raises: RunError: another process is at work in it.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"another run is using {self.folder}",
                    "wait for it, or choose another folder with --folder",
                ) from None
            yield

    @contextmanager
    def _journal(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.folder / JOURNAL, timeout=30)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def record(self, job: str, key: str, event: str, detail: Any = None) -> None:
        """Adds a line to the journal."""
        with self._journal() as journal:
            journal.execute(
                "insert into events values (?, ?, ?, ?, ?)",
                (time.time(), job, key, event, json.dumps(detail)),
            )

    def events(self) -> list[dict[str, Any]]:
        """The journal, oldest first."""
        with self._journal() as journal:
            rows = journal.execute("select time, job, key, event, detail from events").fetchall()
        names = ("time", "job", "key", "event", "detail")
        return [dict(zip(names, row, strict=True)) | {"detail": json.loads(row[4])} for row in rows]

    def work(self, key: str) -> Path:
        """Where a job works."""
        return self.folder / "work" / key

    def artifact(self, key: str) -> Path | None:
        """The folder of an artifact, or None where there is none.

        Raises: RunError: it is there, but its files are not those of its manifest.
        """
        folder = self.folder / "artifacts" / key
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as problem:
            raise self._damaged(folder, f"its manifest cannot be read ({problem})") from None
        for name, entry in manifest["files"].items():
            try:
                size = (folder / name).stat().st_size
            except OSError:
                raise self._damaged(folder, f"{name} is missing") from None
            if size != entry["bytes"]:
                reason = f"{name} has {size} bytes, not {entry['bytes']}"
                raise self._damaged(folder, reason)
        return folder

    def _damaged(self, folder: Path, reason: str) -> RunError:
        return RunError(
            f"the artifact {folder} is damaged: {reason}",
            "remove the folder; the next run rebuilds it",
        )

    def publish(self, key: str, result: Path, job: str) -> Path:
        """Makes the folder `result` the artifact of a key, and clears the job's work folder.

        Raises: Stopped: the disk does not take the manifest.
        """
        files = {}
        for path in sorted(p for p in result.rglob("*") if p.is_file() and p.name != MANIFEST):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[str(path.relative_to(result))] = {
                "bytes": path.stat().st_size,
                "sha256": digest,
            }
        manifest = json.dumps({"key": key, "job": job, "files": files}, indent=1)
        folder = self.folder / "artifacts" / key
        with disk(result):
            (result / MANIFEST).write_text(manifest)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(result, folder)
        shutil.rmtree(self.work(key), ignore_errors=True)
        return folder

    def link(self, name: str, key: str) -> None:
        """Shows an artifact as `models/NAME`."""
        link = self.folder / "models" / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / "artifacts" / key)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a message; what was published stays.

    Raises: Stopped.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in (*_FULL, errno.EROFS, errno.EACCES, errno.EIO):
            reason = "the disk is full" if problem.errno in _FULL else problem.strerror
            raise Stopped(
                f"{problem.filename or path} cannot be written: {reason}",
                "make room and run again: everything finished so far is kept",
            ) from None
        raise
