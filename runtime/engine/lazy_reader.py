"""Reads checkpoints of a run folder in a store: files are fetched when they are read.

A rank with the same layout reads only the file that it has written; DCP decides which.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader

from ..errors import RunError
from ..run_folder.saved import SUMS
from ..stores.objects import StoreError
from ..stores.remote import remote_above


class _Fetched(FileSystem):
    """The file system; files that are not here are fetched from the store."""

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[Any, None, None]:
        fetch(Path(path))
        with super().create_stream(path, mode) as stream:
            yield stream


class CheckpointReader(FileSystemReader):
    """Reads a checkpoint that may be in a store."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.fs: Any = _Fetched()


def fetch(path: Path) -> None:
    """Fetches a checkpoint's file if it is in a store and not here, and checks it.

    A file of that name and size is what the store has, since names in a store contain a number of
    their own for each time that a checkpoint is written (`checksums.Writer`).

    Raises: RunError: it is damaged, or the store is unreachable.
    """
    remote = remote_above(path)
    if remote is None or not (path.parent / SUMS).is_file():
        return
    entry = json.loads((path.parent / SUMS).read_bytes())["files"].get(path.name)
    if entry is not None:
        with remote.going():
            remote.fetch(path.parent, {path.name: entry}, f"the checkpoint {path.parent.name}")


def fetched_again(path: Path) -> bool:
    """Whether a file that is damaged here could be replaced by the one in the store.

    Raises: Interrupted: the store is unreachable.
    """
    if remote_above(path) is None:
        return False
    path.unlink(missing_ok=True)
    return not why_not(path)


def why_not(path: Path) -> str:
    """Fetches a file as `fetch` does; returns what is wrong with it, "" for nothing.

    Raises: Interrupted: the store is unreachable.
    """
    try:
        fetch(path)
    except StoreError:
        raise
    except RunError as problem:
        if problem.exit_code != 1:
            raise
        return f"{path.name} in the store is not what was written"
    return ""
