"""The run folder: all durable state of a run, and how artifacts are created.

    plan.json        the plan that was last run in the folder
    journal.jsonl    the history of jobs: a line each, appended by rank 0
    events.jsonl     progress, step by step: a line each, with its `time`, appended by rank 0
    lease.json       the owner, while a run uses the folder
    artifacts/KEY/   results of jobs, each with its manifest (sizes and checksums)
    work/KEY/        a job in progress: its checkpoints
    log              output of libraries and processes of the run
    logs/rank-N.log  output and log of rank N of gangs, one start after the other
    metrics/         one file of JSON lines per train job
    models/STAGE     the results of stages, as links to artifacts
    cache/           what can be recomputed

An artifact is assembled in `work`, including its manifest, and renamed into place at once: it is
either complete or absent.

For a run folder in an object store this is the local folder (`stores.remote`).
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..disk import clear_partial, disk, link, move, write
from ..errors import RunError, reason
from ..stores.pulling import catch_up, pull, renew_result, take_file, take_results
from ..stores.remote import MANIFEST, SHARDS, Remote, remote_of
from ..stores.remote import SUMS as CHECKPOINT_SUMS
from . import homes
from .homes import home_of
from .journal import Journal
from .json_lines import Lines
from .lease import Lease
from .ran import starts
from .stored_lease import StoredLease

SUMS = "result-sums.json"
"""In a job's work folder: SHA-256 checksums of files of its result, by name, for files whose
checksum was computed while they were written."""
EVENTS = "events.jsonl"
LOG = "log"
"""The file with the output of libraries and processes of a run."""
LOGS = "logs"
PROFILES = "profiles"
"""The folder with the output and log of each rank of a gang."""
RANK_LOG = "ETUDE_RANK_LOG"
"""The variable with the log of this rank, if it is not `logs/rank-N.log`."""

CHECKED = 64 << 30
"""Bytes of a result whose checksums are compared before a job reads it, smaller files first: that
takes about a minute. Of the rest only the sizes are compared."""
_THREADS = 4
"""Files whose checksums are computed at once."""


class Store:
    """Artifacts and journal of a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: Lease | None = None
        self._journal = Journal(folder)
        self._events = Lines(folder / EVENTS)
        self._verified: set[tuple[str, bool]] = set()

    @cached_property
    def remote(self) -> Remote | None:
        """The object store that the run folder is in, if any."""
        return remote_of(home_of(self.folder))

    @property
    def name(self) -> str:
        """The run folder as messages show it."""
        if self.remote is None:
            return str(self.folder)
        inside = os.path.relpath(self.folder, home_of(self.folder))
        return self.remote.bucket.place("" if inside == "." else inside)

    def pull(self) -> None:
        """Updates the local folder from its store, if it has one.

        Raises: RunError: the store cannot be reached or denies access.
        """
        if self.remote is not None:
            pull(self.remote)

    def fetch_small(self, *names: str) -> None:
        """Fetches files of the run that are in its store, if it has one.

        Raises: Interrupted: the store cannot be reached.
        """
        if self.remote is not None:
            with self.remote.going():
                for name in names:
                    take_file(self.remote, self.folder / name)

    def look_again(self) -> None:
        """Looks for results that other machines have made since, if there is a store.

        Raises: Interrupted: the store cannot be reached.
        """
        if self.remote is not None:
            with self.remote.going():
                take_results(self.remote)

    def create(self) -> str | None:
        """Creates the folder and its journal, if they do not exist.

        Returns: what was done, if the user should know.
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
            Stopped: the disk is full.
            Interrupted: another run has taken the folder.
        """
        self.require_lease()
        with disk(self._journal.path):
            self._journal.record(job, key, event, detail)
        if self.remote is not None:
            self.remote.record(self._journal.path)

    def events(self) -> list[dict[str, Any]]:
        """The journal, oldest first: `time`, `job`, `key`, `event` and `detail` of each line.

        Raises: RunError: the journal is damaged.
        """
        return self._journal.events()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Adds an event to `events.jsonl`, with its time.

        The event is on disk when this returns, except for steps, which are also in `metrics`.
        """
        with disk(self._events.path):
            self._events.append({"time": time.time(), **event}, durable=event["event"] != "step")

    @property
    def address(self) -> str:
        """The run folder as other nodes find it: an absolute path, or a URL."""
        return str(self.folder.resolve()) if self.remote is None else self.name

    @contextmanager
    def lease(
        self,
        on_wait: Callable[[str], None] = lambda message: None,
        *,
        nodes: bool = False,
        beside: bool = False,
    ) -> Iterator[Lease]:
        """Keeps other runs, on any host, out of the folder.

        Args:
            on_wait: called with the reason if this may take a while.
            nodes: whether other nodes may have what a store lacks, so that the gang looks for it
                (`gathering.send_unsent`).
            beside: whether parts of other variants may work beside this one (`Part.beside`).

        Raises: RunError: another process is using the folder.
        """
        home, remote = home_of(self.folder), self.remote
        own = homes.beside(self.folder) if beside else home
        with disk(own):
            own.mkdir(exist_ok=True)
        apart = partial(homes.apart, home, own)
        lease = StoredLease(home, remote.bucket) if remote else Lease(own, apart)
        self.held = lease
        with disk(self.folder):
            lease.take(on_wait)
        try:
            if remote is not None and lease.mine:
                pull(remote)
                if not nodes:
                    catch_up(remote)
            with remote.following(rest=True) if remote and lease.mine else nullcontext():
                yield lease
        finally:
            self.held = None
            lease.release()

    @property
    def events_path(self) -> Path:
        """The file that `tell` writes."""
        return self._events.path

    def log_of(self, rank: int) -> Path:
        """The file with the output and log of a rank of gangs; for this process it may be set."""
        told = os.environ.get(RANK_LOG)
        return Path(told) if told else self.folder / LOGS / f"rank-{rank}.log"

    def require_lease(self) -> None:
        """Raises: Interrupted: another run has taken the folder from this one."""
        if self.held is not None:
            self.held.require()

    def work(self, key: str) -> Path:
        """The work folder of a job."""
        return self.folder / "work" / key

    def artifact(self, key: str) -> Path | None:
        """The folder of an artifact, if it exists.

        Raises: RunError: its files do not match its manifest.
        """
        folder = self.folder / "artifacts" / key
        try:
            files = self._files(folder)
        except FileNotFoundError:
            return None
        for name, entry in files.items():
            size = self._size(folder / name)
            if size is None:
                raise self._damaged(folder, f"{name} is missing")
            if size != entry["bytes"]:
                reason = f"{name} has {size} bytes, not {entry['bytes']}"
                raise self._damaged(folder, reason)
        return folder

    def _files(self, folder: Path) -> dict[str, dict[str, Any]]:
        """The files of an artifact according to its manifest: name → `bytes`, `sha256`.

        Raises:
            RunError: the manifest is damaged.
            FileNotFoundError: there is none.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            files = manifest["files"]
            if manifest["key"] == folder.name:
                return {
                    name: {"bytes": of["bytes"], "sha256": of["sha256"]}
                    for name, of in files.items()
                }
            why = "it belongs to another result"
        except FileNotFoundError:
            raise
        except (OSError, ValueError, RecursionError) as problem:
            why = str(problem)
        except (KeyError, TypeError, AttributeError):
            why = "it is no manifest"
        raise self._damaged(folder, f"its manifest cannot be read ({why})")

    def verify(self, key: str, *, shards: bool) -> None:
        """Compares the checksums of an artifact's files with its manifest, once, up to `CHECKED`
        bytes. What comes from a store was compared when it was fetched.

        Args:
            shards: also of the shards of checkpoints; the ranks that train on them compare theirs.

        Raises: RunError: a file is not what was written.
        """
        if self.remote is not None or (key, shards) in self._verified:
            return
        folder = self.folder / "artifacts" / key
        files = self._files(folder)
        left, chosen = CHECKED, []
        for name in sorted(files, key=lambda name: files[name]["bytes"]):
            left -= files[name]["bytes"]
            if left >= 0 and (shards or not name.endswith(SHARDS)):
                chosen.append(name)
        with ThreadPoolExecutor(_THREADS) as pool:
            sums = pool.map(lambda name: _sum_or_why(folder / name), chosen)
            for name, found in zip(chosen, sums, strict=True):
                if found != files[name]["sha256"]:
                    why = found if " " in found else "is not what was written"
                    raise self._damaged(folder, f"{name} {why}")
        self._verified.add((key, shards))

    def _size(self, path: Path) -> int | None:
        """Bytes of an artifact's file, here or in the store; None if it does not exist."""
        try:
            return path.stat().st_size
        except OSError:
            return self.remote.size(path) if self.remote is not None else None

    def _damaged(self, folder: Path, reason: str) -> RunError:
        if self.remote is not None:
            place = self.remote.bucket.place(f"artifacts/{folder.name}")
            return RunError(
                f"the artifact {place} is damaged: {reason}",
                "remove it from the store, with all that is below; the next run rebuilds it",
            )
        return RunError(
            f"the artifact {folder} is damaged: {reason}",
            "remove the folder; the next run rebuilds it",
        )

    def fetch(
        self, key: str, only: Collection[str] | None = None, most: int | None = None
    ) -> Path | None:
        """The folder of an artifact; files are fetched if it is in a store.

        The shards of checkpoints are not: readers fetch those that they need.

        Args:
            only: the files to fetch. Default: all.
            most: larger files, in bytes, are not fetched.

        Raises: RunError: the artifact is damaged, or the store cannot be reached.
        """
        folder = self.artifact(key)
        if folder is None or self.remote is None:
            return folder
        files = self._files(folder)
        wanted = {
            name: entry
            for name, entry in files.items()
            if not name.endswith(SHARDS)
            and (only is None or name in only)
            and (most is None or entry["bytes"] <= most)
        }
        self.remote.fetch(home_of(self.folder) / "artifacts" / key, wanted, f"the artifact {key}")
        return folder

    def take_over(self, key: str) -> None:
        """Fetches an artifact that another machine of the gang knows of, if there is a store.

        Raises: RunError: the artifact is damaged, or the store cannot be reached.
        """
        if self.remote is None:
            return
        if self.remote.apart:
            renew_result(self.remote, key)
            self._adopt(key)
        self.fetch(key)

    def make_room(self, key: str) -> None:
        """Removes what earlier jobs and starts have left on this node, before a job of all ranks
        or, with "", after the last. Nothing on rank 0's node, or where all nodes share the folder.
        """
        if self.remote is None or not self.remote.apart:
            return
        for each in (home_of(self.folder) / "work").glob("*"):
            if each.name != key:
                shutil.rmtree(each, ignore_errors=True)
        for name in ("result", "result.partial") if key else ():
            shutil.rmtree(self.work(key) / name, ignore_errors=True)

    def _adopt(self, key: str) -> None:
        """Moves the shards of a result that this node has written to the artifact."""
        folder = home_of(self.folder) / "artifacts" / key
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name in (name for name in files if name.endswith(SHARDS)):
            with suppress(FileNotFoundError):  # another rank of this node was faster
                for own in self.work(key).rglob(Path(name).name):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    own.replace(folder / name)

    def publish(self, key: str, result: Path, job: str) -> Path:
        """Makes the folder `result` the artifact of a key, and deletes the job's work folder.

        Raises: Stopped: the disk is full.
        """
        files = {}
        clear_partial(result)
        sums = _known_sums(self.work(key))
        for path in sorted(p for p in result.rglob("*") if p.is_file() and p.name != MANIFEST):
            name = str(path.relative_to(result))
            files[name] = {"bytes": path.stat().st_size, "sha256": sums.get(name) or _sum(path)}
        if self.remote is not None:
            files = {**_elsewhere(result), **files}
        ran = starts(self.work(key))
        manifest = json.dumps({"key": key, "job": job, "ran": ran, "files": files}, indent=1)
        folder = self.folder / "artifacts" / key
        with disk(result):
            write(result / MANIFEST, manifest)
            shutil.rmtree(folder, ignore_errors=True)
            move(result, folder)
        if self.remote is not None:
            self.remote.publish(key, home_of(self.folder) / "artifacts" / key, list(files))
        shutil.rmtree(self.work(key), ignore_errors=True)
        return folder

    def clear(self, key: str) -> None:
        """Removes what is left in the work folder of a job that was killed while its result was
        published."""
        if self.work(key).is_dir():
            shutil.rmtree(self.work(key), ignore_errors=True)
            if self.remote is not None:
                self.remote.remove_later(f"work/{key}/")

    def is_spent(self, key: str) -> bool:
        """Whether only the record of an artifact is left."""
        try:
            manifest = (self.folder / "artifacts" / key / MANIFEST).read_bytes()
            return "spent" in json.loads(manifest)
        except (OSError, ValueError, TypeError, RecursionError):
            return False

    def spend(self, key: str, keep: Collection[str]) -> None:
        """Removes what is in an artifact, and leaves a record of it.

        Args:
            keep: files that belong to the record.

        Raises: Stopped: the disk does not allow it.
        """
        folder = self.folder / "artifacts" / key
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: entry for name, entry in manifest["files"].items() if name in keep}
        with disk(folder):
            if new := "spent" not in manifest:
                text = json.dumps({**manifest, "files": files, "spent": True}, indent=1)
                write(folder / MANIFEST, text)
            for path in list(folder.iterdir()):
                if path.name not in (MANIFEST, *files):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if new and self.remote is not None:
            self.remote.publish(key, home_of(self.folder) / "artifacts" / key, list(files))

    def drop(self, key: str) -> None:
        """Removes the files of an artifact from this node, where rank 0 works in another folder."""
        if self.remote is not None and self.remote.apart:
            shutil.rmtree(home_of(self.folder) / "artifacts" / key, ignore_errors=True)

    def link(self, name: str, key: str) -> None:
        """Links an artifact as `models/NAME`.

        Raises: Stopped: the disk is full.
        """
        with disk(self.folder / "models" / name):
            link(Path("..") / "artifacts" / key, self.folder / "models" / name)


def _known_sums(work: Path) -> dict[str, str]:
    try:
        return json.loads((work / SUMS).read_bytes())
    except FileNotFoundError:
        return {}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_or_why(path: Path) -> str:
    """The checksum of a file, or why it cannot be read."""
    try:
        return _sum(path)
    except OSError as problem:
        return f"cannot be read: {(problem.strerror or str(problem)).lower()}"


def _elsewhere(result: Path) -> dict[str, dict[str, Any]]:
    """The files of checkpoints in a result according to their checksums, including those written by
    ranks on other machines."""
    found = {}
    for path in result.rglob(CHECKPOINT_SUMS):
        inside = path.parent.relative_to(result)
        for name, entry in json.loads(path.read_bytes())["files"].items():
            found[str(inside / name)] = {"bytes": entry["bytes"], "sha256": entry["sha256"]}
    return found
