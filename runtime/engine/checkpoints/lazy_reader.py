"""Reads checkpoints of a run folder in a store: files are fetched when they are read.

A rank with the same layout reads only the file that it has written; DCP decides which.
"""

import json
import pickle
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from ...errors import RunError
from ...run_folder.saved import SUMS
from ...stores.objects import StoreError
from ...stores.remote import remote_above

_CLASSES = "Metadata TensorStorageMetadata BytesStorageMetadata TensorProperties StorageMeta"
_METADATA = {
    "torch.distributed.checkpoint.metadata": (
        *_CLASSES.split(),
        *("ChunkStorageMetadata", "MetadataIndex", "_MEM_FORMAT_ENCODING"),
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", "device"),
    "pathlib": ("PosixPath", "PurePosixPath", "Path"),
    "collections": ("OrderedDict",),
}
"""What DCP's metadata consist of besides types of numbers, by module (torch 2.14)."""


class _Fetched(FileSystem):
    """The file system; files that are not here are fetched from the store."""

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[Any, None, None]:
        fetch(Path(path))
        with super().create_stream(path, mode) as stream:
            yield stream


class _Plain(pickle.Unpickler):
    """Reads DCP's metadata, and nothing else that a pickle can hold.

    Raises: UnpicklingError: it names anything else, which could be run.
    """

    def find_class(self, module: str, name: str, /) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _METADATA.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint has")


class CheckpointReader(FileSystemReader):
    """Reads a checkpoint that may be in a store, and runs nothing that it holds."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path)
        self.fs: Any = _Fetched()

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """DCP's method, which would load any pickle."""
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata = _Plain(file).load()
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class PlainPlanner(DefaultLoadPlanner):
    """Loads what is no tensor: numbers, texts and containers of them."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        """DCP's method, which would load any pickle.

        Raises: UnpicklingError: it names anything that could be run.
        """
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)


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
