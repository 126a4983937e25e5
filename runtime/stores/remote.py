"""A run folder in an object store, and the local folder in which its jobs work.

The store is authoritative, and the local folder is a cache of it. What is complete is uploaded, and
what refers to it is uploaded afterwards: an artifact's files before its manifest, a checkpoint's
files before its checksums, both before their line in the journal. So nothing refers to incomplete
uploads, and a machine that vanishes only loses what came after its last checkpoint.
"""

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..disk import move, write
from ..errors import Interrupted, RunError
from .objects import Bucket, Object, StoreError
from .segments import Growing

MARKER = ".etude-store.json"
"""The file in a local folder that names its store."""
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
SUMS = "checksums.json"
METADATA = ".metadata"
"""The file that DCP writes last, which locates all tensors of a checkpoint."""
LEASE = "lease.json"
LAUNCH = "launch.json"
"""The file in a run folder that says what a launch has queued; removed when that is cancelled."""
SHARDS = ".distcp"
"""The suffix of checkpoint files that are downloaded one by one as they are read."""
SYNC_SECONDS = 15.0
_JOBS = ("artifacts", "work", "cache", "models")
_RESULTS = ("result", "result.partial")
_GROWING = ("events.jsonl", "metrics/", "logs/", "log")
_known: dict[Path, "Remote"] = {}


def remote_of(home: Path) -> "Remote | None":
    """The store of a local folder; None if it has none.

    Raises: RunError: the folder's marker cannot be read.
    """
    path = Path(os.path.realpath(home))
    found = _known.get(path)
    if found is None and (path / MARKER).is_file():
        try:
            url = str(json.loads((path / MARKER).read_bytes())["url"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(
                f"{path / MARKER} cannot be read", "remove the folder: the store has its content"
            ) from None
        found = _known[path] = Remote(path, url)
    return found


def remote_above(path: Path) -> "Remote | None":
    """The store of the run folder that contains a path."""
    real = Path(os.path.realpath(path))
    return next((found for each in real.parents if (found := remote_of(each))), None)


def begin(home: Path, url: str) -> "Remote":
    """Creates a local folder for a URL.

    Raises:
        RunError: the URL is not of a store.
        OSError: the folder cannot be written.
    """
    bucket = Bucket(url)
    home.mkdir(parents=True, exist_ok=True)
    if not (home / MARKER).is_file():
        write(home / MARKER, json.dumps({"url": bucket.url}) + "\n")
    found = remote_of(home)
    assert found
    return found


class Remote:
    """A run folder in a store, as the processes of one machine see it.

    Attributes:
        home: the local folder.
        objects: the objects at the last listing, and those written since.
        apart: whether this process belongs to a gang whose rank 0 works in another folder.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.bucket = Bucket(url)
        self.objects: dict[str, Object] = {}
        self.apart = False
        self._looked = False
        self._growing: dict[str, Growing] = {}
        self._plain: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "store")

    @property
    def url(self) -> str:
        """The run folder's URL."""
        return self.bucket.url

    @contextmanager
    def going(self) -> Iterator[None]:
        """Ends the run if the store fails; the local folder has whatever the store lacks.

        Raises: Interrupted.
        """
        try:
            yield
        except StoreError as problem:
            self.bucket.patient = False  # remaining requests are not retried
            raise Interrupted(
                problem.message,
                f"{problem.help}; then run again: nothing is lost, {self.home} has what the store "
                "does not have",
            ) from problem

    # Listing

    def look(self) -> None:
        """Lists the store.

        Raises: StoreError.
        """
        self.objects = self.bucket.listed()
        self._looked = True

    def size(self, path: Path) -> int | None:
        """The size of an object at the last listing; None if it did not exist."""
        name = self.name(path)
        if not self._looked and name not in self.objects:
            self.look()
        found = self.objects.get(name)
        return None if found is None else found.size

    def name(self, path: Path) -> str:
        """The object for a local file. Files that a job writes into its result belong to the
        artifact from the start, since objects cannot be moved."""
        real = Path(os.path.realpath(path.parent)) / path.name
        parts = real.relative_to(self.home).parts
        if parts[0] == "work" and len(parts) > 2 and parts[2] in _RESULTS:
            parts = ("artifacts", parts[1], *parts[3:])
        return "/".join(parts)

    def keys(self) -> set[str]:
        """The keys of the artifacts that are complete in the store."""
        found = (name.split("/") for name in self.objects)
        return {p[1] for p in found if len(p) == 3 and p[0] == "artifacts" and p[2] == MANIFEST}

    def marks(self) -> list[str]:
        """The results and checkpoints that were complete at the last listing."""
        ends = (f"/{MANIFEST}", f"/{SUMS}")
        return sorted(name for name in self.objects if name.endswith(ends))

    # Uploading

    def put(self, paths: Collection[Path]) -> None:
        """Uploads files.

        Raises: StoreError.
        """
        self.put_as({self.name(path): path for path in paths})

    def put_as(self, files: Mapping[str, Path]) -> None:
        """Uploads files: object → file.

        Raises: StoreError.
        """
        self.bucket.put(files)
        for name, path in files.items():
            self.objects[name] = Object(path.stat().st_size, "", 0.0)

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces an object.

        Raises: StoreError.
        """
        self.bucket.write(name, content)
        self.objects[name] = Object(len(content), "", 0.0)

    def publish(self, key: str, folder: Path, files: Collection[str]) -> None:
        """Uploads the files of an artifact that the store lacks, its manifest last; then removes
        what the job left behind.

        Args:
            files: names of its files, except the manifest. Another machine has uploaded those that
                are not here.

        Raises: Interrupted.
        """
        with self.going():
            there = self.bucket.listed(f"artifacts/{key}")
            self.objects |= there
            new = {}
            for name in files:
                object = f"artifacts/{key}/{name}"
                path = folder / name
                if not path.is_file():
                    continue
                sent = there.get(object)
                if name.endswith(SHARDS) and sent and sent.size == path.stat().st_size:
                    continue
                new[object] = path
            self.put_as(new)
            self.put_as({f"artifacts/{key}/{MANIFEST}": folder / MANIFEST})
            own = {MANIFEST, *files}
            # Shards of results whose jobs were cut off while they wrote them.
            stale = [name for name in there if name.removeprefix(f"artifacts/{key}/") not in own]
            self.bucket.remove(stale)
        self.remove_later(f"work/{key}/")

    def remove_later(self, prefix: str, first: str = SUMS) -> None:
        """Removes everything below a prefix, in the background; files called `first` go first."""

        def remove() -> None:
            with suppress(StoreError):
                names = list(self.bucket.listed(prefix.rstrip("/")))
                names = [name for name in names if name.startswith(prefix)]
                marks = [name for name in names if name.endswith(f"/{first}")]
                self.bucket.remove(marks)
                self.bucket.remove([name for name in names if name not in marks])
                for name in names:
                    self.objects.pop(name, None)

        self._worker.submit(remove)

    def settle(self) -> None:
        """Waits for the background work."""
        self._worker.submit(lambda: None).result()

    def record(self, path: Path) -> None:
        """Uploads a small file that has changed.

        Raises: Interrupted.
        """
        with self.going():
            self.bucket.write(self.name(path), path.read_bytes())

    def send(self, *, metrics: bool, rest: bool, plain: bool = False) -> None:
        """Sends what has been added since the last call.

        Args:
            metrics: the steps of train jobs; sent by the process that writes them.
            rest: events and logs.
            plain: other files, as a whole: the plan, candidates to label.

        Raises: StoreError.
        """
        with self._sending:
            for path in _files(self.home):
                name = path.relative_to(self.home).as_posix()
                if _grows(name):
                    own = _in_run(name).startswith("metrics/")
                    if metrics if own else rest:
                        self._grown(name, path).send(rewritten=own)
                elif plain:
                    stat = path.stat()
                    seen = stat.st_size, stat.st_mtime_ns
                    if self._plain.get(name) != seen:
                        self.bucket.write(name, path.read_bytes())
                        self._plain[name] = seen

    def _grown(self, name: str, path: Path) -> Growing:
        return self._growing.setdefault(name, Growing(self.bucket, name, path))

    def took(self, name: str, content: bytes) -> None:
        """Records what the store has of a growing file."""
        self._grown(name, self.home / name).known(content)

    def send_log(self, path: Path) -> None:
        """Sends what has been added to a rank's log since the last call.

        Raises: StoreError.
        """
        with self._sending:
            self._grown(self.name(path), path).send(rewritten=False)

    @contextmanager
    def following(self, *, metrics: bool = False, rest: bool = False) -> Iterator[None]:
        """Sends steps, or events and logs, every few seconds, and the rest at the end.

        A store that cannot be reached is no error here: what jobs need is uploaded elsewhere.
        """
        try:
            with _every_few_seconds(lambda: self.send(metrics=metrics, rest=rest)):
                yield
        finally:
            with suppress(StoreError, OSError):
                self.settle()
                self.send(metrics=metrics, rest=rest, plain=rest)

    @contextmanager
    def following_log(self, path: Path) -> Iterator[None]:
        """Sends a rank's log every few seconds, and the rest at the end, on another node than rank
        0's. A store that cannot be reached is no error here."""
        try:
            with _every_few_seconds(lambda: self.send_log(path)):
                yield
        finally:
            with suppress(StoreError, OSError):
                self.send_log(path)

    # Downloading

    def fetch(self, folder: Path, files: Mapping[str, Mapping[str, Any]], named: str) -> None:
        """Downloads missing files and verifies their checksums.

        Args:
            files: names in the folder → `bytes` and `sha256`.
            named: what they belong to, for messages.

        Raises:
            StoreError.
            RunError: an object is not what was written.
        """
        with self.alone():
            wanted = {}
            for name, entry in files.items():
                path = folder / name
                try:
                    if path.stat().st_size == entry["bytes"]:
                        continue
                except OSError:
                    pass
                wanted[name] = path
            if not wanted:
                return
            aside = self.home / "cache" / f".fetched-{os.uname().nodename}-{os.getpid()}"
            shutil.rmtree(aside, ignore_errors=True)
            try:
                got = {name: aside / name for name in wanted}
                self.bucket.get({self.name(wanted[name]): path for name, path in got.items()})
                for name, path in got.items():
                    with path.open("rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    if digest != files[name]["sha256"]:
                        raise RunError(
                            f"{self.bucket.place(self.name(wanted[name]))} is not what was "
                            f"written: {named} is damaged",
                            f"remove {self.bucket.place(self.name(folder))}; the next run "
                            "rebuilds it",
                        )
                for name, path in got.items():
                    wanted[name].parent.mkdir(parents=True, exist_ok=True)
                    move(path, wanted[name])
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes of this machine from downloading the same files meanwhile."""
        path = self.home / "cache" / ".fetching"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def get_small(self, names: Collection[str]) -> None:
        """Downloads objects to their places in the folder.

        Raises: StoreError.
        """
        self.bucket.get({name: self.home / name for name in names})


@contextmanager
def _every_few_seconds(send: Callable[[], None]) -> Iterator[None]:
    """Sends in the background until the end, which does not wait for it."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(SYNC_SECONDS):
            with suppress(StoreError, OSError):
                send()

    threading.Thread(target=follow, name="store", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _files(home: Path) -> Iterator[Path]:
    """The files of a run folder that belong to no job, including those of variants."""
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        if path.name.startswith(".") or path.name in (*_JOBS, MARKER, JOURNAL, LEASE, "wandb"):
            continue
        if path.name.startswith(LEASE):
            continue
        if path.is_dir() and path.name == "variants":
            for each in sorted(path.iterdir()):
                yield from _files(each)
        elif path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file() and _plain(p))
        elif path.is_file():
            yield path


def _plain(path: Path) -> bool:
    return not path.name.startswith(".") and not path.name.endswith(".partial")


def in_variant(name: str) -> str:
    """The beginning of a name that identifies a variant's run; "" for the recipe's own."""
    parts = name.split("/")
    return "/".join(parts[:2]) + "/" if parts[0] == "variants" and len(parts) > 2 else ""


def _in_run(name: str) -> str:
    return name.removeprefix(in_variant(name))


def _grows(name: str) -> bool:
    own = _in_run(name)
    return any(own == each or (each.endswith("/") and own.startswith(each)) for each in _GROWING)


def belongs_to_jobs(name: str) -> bool:
    """Whether an object is part of an artifact, or of a job in progress."""
    return _in_run(name).split("/")[0] in _JOBS
