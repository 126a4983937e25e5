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
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RunError, Stopped, reason
from .journal import Journal
from .json_lines import Lines
from .lease import Lease
from .ran import starts

MANIFEST = "manifest.json"
SUMS = "result-sums.json"
"""In a job's work folder: checksums (SHA-256) of files of its result, by their names, where they
were made as the files were written."""
EVENTS = "events.jsonl"
LOG = "log"
"""The file with what libraries and processes of a run print."""
LOGS = "logs"
"""The folder with what each rank of a gang prints and logs."""
RANK_LOG = "ETUDE_RANK_LOG"
"""The variable with the log of this rank, where it is not `logs/rank-N.log`."""
VARIANTS = "variants"
"""The folder with the runs of a recipe's variants."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    """Artifacts and journal of a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: Lease | None = None
        self._journal = Journal(folder)
        self._events = Lines(folder / EVENTS)

    def create(self) -> str | None:
        """Makes the folder and its journal where they are not there.

        Returns: what was done that a person should know.
        Raises: RunError: the folder cannot be written.
        """
        try:
            for name in ("artifacts", "work", "metrics", "models", "cache", LOGS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            return self._journal.create()
        except OSError as problem:
            raise RunError(
                f"the run folder {self.folder} cannot be used: {reason(problem)}",
                "choose another with --folder",
            ) from None

    def exists(self) -> bool:
        """Whether something has been run in the folder."""
        return self._journal.exists()

    def record(self, job: str, key: str, event: str, detail: Any = None) -> None:
        """Adds a line to the journal.

        Raises:
            Stopped: the disk does not take it.
            Interrupted: another run has taken the folder.
        """
        self.require_lease()
        with disk(self._journal.path):
            self._journal.record(job, key, event, detail)

    def events(self) -> list[dict[str, Any]]:
        """The journal, oldest first: `time`, `job`, `key`, `event` and `detail` of each line.

        Raises: RunError: it is damaged.
        """
        return self._journal.events()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Adds an event to `events.jsonl`, with its time.

        The disk has it when this returns, but for steps, which `metrics` has, too.
        """
        with disk(self._events.path):
            self._events.append({"time": time.time(), **event}, durable=event["event"] != "step")

    @contextmanager
    def lease(self, on_wait: Callable[[str], None] = lambda message: None) -> Iterator[Lease]:
        """Keeps other runs, on this host and on others, out of the folder.

        Args:
            on_wait: is told why this may take a while.

        Raises: RunError: another process is at work in it.
        """
        self.held = lease = Lease(home_of(self.folder))
        with disk(self.folder):
            lease.take(on_wait)
        try:
            yield lease
        finally:
            self.held = None
            lease.release()

    @property
    def events_path(self) -> Path:
        """The file of what `tell` is told."""
        return self._events.path

    def log_of(self, rank: int) -> Path:
        """The file with what a rank of gangs prints and logs, as this process has been told."""
        told = os.environ.get(RANK_LOG)
        return Path(told) if told else self.folder / LOGS / f"rank-{rank}.log"

    def require_lease(self) -> None:
        """Raises: Interrupted: another run has taken the folder from this one."""
        if self.held is not None:
            self.held.require()

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
        sums = _known_sums(self.work(key))
        for path in sorted(p for p in result.rglob("*") if p.is_file() and p.name != MANIFEST):
            name = str(path.relative_to(result))
            files[name] = {"bytes": path.stat().st_size, "sha256": sums.get(name) or _sum(path)}
        ran = starts(self.work(key))
        manifest = json.dumps({"key": key, "job": job, "ran": ran, "files": files}, indent=1)
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


def _known_sums(work: Path) -> dict[str, str]:
    try:
        return json.loads((work / SUMS).read_bytes())
    except FileNotFoundError:
        return {}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def home_of(folder: Path) -> Path:
    """The run folder of the recipe, whose artifacts that of a variant shares."""
    of_variant = folder.parent.name == VARIANTS and (folder / "artifacts").is_symlink()
    return folder.parents[1] if of_variant else folder


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
