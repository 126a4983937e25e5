"""Checkpoints with checksums: each rank computes those of its files while writing them.

DCP's coordinator writes `.metadata` once all ranks are done; here it then writes `checksums.json`,
with the size and SHA-256 of all files. A checkpoint without it was never finished.
"""

import hashlib
import json
import secrets
from collections.abc import Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from ...disk import sync, write
from ...errors import Interrupted
from ...run_folder.saved import SUMS
from ...stores.objects import StoreError
from ...stores.remote import METADATA, remote_above
from .lazy_reader import CheckpointReader, fetched_again, why_not

THREADS = 4
"""Files that a rank checks in parallel."""


class _Stream:
    """A file being written, with its size and checksum so far."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        """Writes at the end of the file; DCP writes nowhere else."""
        self._digest.update(data)
        self._size += memoryview(data).nbytes
        return self._file.write(data)

    def sum(self) -> dict[str, Any]:
        """Size and checksum of what was written."""
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Files(FileSystem):
    """The file system, with the sums of all files written."""

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Any]] = {}

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[Any, None, None]:
        with super().create_stream(path, mode) as file:
            stream = _Stream(file)
            yield stream
        self.sums[Path(path).name] = stream.sum()


class _Written(list[WriteResult]):
    """What a rank has written, with the sums of its files."""

    sums: dict[str, dict[str, Any]]
    unsent: str = ""


class Writer(FileSystemWriter):
    """Writes a checkpoint with its checksums; for a run folder in a store, also into the store.

    Each rank uploads its own files when they are complete, in the background if the checkpoint is
    written in the background. The last file is uploaded once all ranks are done. If the store is
    unreachable, the checkpoint is complete here, and finishing it raises Interrupted.

    In a store, the names of the shards contain a number of their own for each time that a
    checkpoint is written. So a shard of the same step that another start has left, on the disk of a
    machine or by an upload that came late, is never taken for one of this checkpoint.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.fs: Any = _Files()

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """The ranks' plans with the names of their files; one rank makes them for all."""
        named = super().prepare_global_plan(plans)
        if remote_above(Path(self.path)) is None:
            return named
        own = secrets.token_hex(4)
        return [
            replace(plan, storage_data=replace(data, prefix=f"{data.prefix}{own}_"))
            for plan in named
            for data in [plan.storage_data]
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        written = _Written(super().write_data(plan, planner).wait())
        written.sums = dict(self.fs.sums)
        if remote := remote_above(Path(self.path)):
            try:
                remote.put([Path(self.path) / name for name in written.sums])
            except StoreError as problem:
                written.unsent = problem.message
        done: Future[list[WriteResult]] = Future()
        done.set_result(written)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Completes the checkpoint; one rank calls it when all have written their files."""
        super().finish(metadata, results)
        files = {name: of for each in results for name, of in getattr(each, "sums", {}).items()}
        # It was written under another name.
        files[METADATA] = self.fs.sums[f"{METADATA}.tmp"]
        folder = Path(self.path)
        # The names of the files, too, before the file that says that all are there.
        sync(folder)
        write(folder / SUMS, json.dumps({"files": files}, indent=1))
        sync(folder.parent)
        if remote := remote_above(folder):
            unsent = next(filter(None, (getattr(each, "unsent", "") for each in results)), "")
            if unsent:
                raise Interrupted(
                    unsent, f"run again when the store is back: the checkpoint is in {folder}"
                )
            with remote.going():
                remote.put([folder / METADATA])
                remote.put([folder / SUMS])


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was finished."""
    return (path / SUMS).is_file()


def damage(path: Path, rank: int = 0, ranks: int = 1) -> str:
    """What is wrong with a rank's share of a checkpoint's files; "" for nothing.

    Args:
        rank: each file is read by one of `ranks`, and first fetched if it is in a store.
    """
    try:
        files = json.loads((path / SUMS).read_bytes())["files"]
        wanted = {name: (int(of["bytes"]), str(of["sha256"])) for name, of in files.items()}
        share = [of for of in sorted(wanted.items()) if _writer(of[0]) % ranks == rank]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return f"{SUMS} cannot be read"
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda of: _damage(path / of[0], of[1]), share)
        wrong = next(filter(None, found), "")
    return wrong or ("" if rank else _unlisted(path, wanted))


def _unlisted(path: Path, listed: Collection[str]) -> str:
    """Which file of a checkpoint has no checksum, as where the list of these is damaged."""
    names = {METADATA}
    if METADATA in listed:
        try:
            stored = CheckpointReader(path).read_metadata().storage_data or {}
            names = {each.relative_path for each in stored.values()}
        except Exception as problem:  # of many kinds: somebody has made the checksum fit
            return f"{METADATA} cannot be read: {problem}"
    missing = sorted(names.difference(listed))
    return f"{SUMS} does not list {missing[0]}" if missing else ""


def _writer(name: str) -> int:
    """The rank that wrote a checkpoint's file, `__RANK_NUMBER.distcp`, with a number of its own in
    between in a store. It checks the file, because it also reads it."""
    number = name.removeprefix("__").partition("_")[0]
    return int(number) if number.isdecimal() else 0


def _damage(file: Path, wanted: tuple[int, str]) -> str:
    """What is wrong with a file of so many bytes and of this SHA-256."""
    length, written = wanted
    if wrong := why_not(file):
        return wrong
    try:
        size = file.stat().st_size
        if size != length:
            return f"{file.name} has {size:,} bytes, not {length:,}"
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as problem:
        return f"{file.name}: {(problem.strerror or str(problem)).lower()}"
    if digest == written or fetched_again(file):
        return ""
    return f"{file.name} is not what was written"
