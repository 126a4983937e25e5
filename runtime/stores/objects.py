"""A folder in an object store: reading, writing and listing, and messages for failures."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...compiler.files.store_access import opened
from ...compiler.files.store_errors import Why, why
from ...compiler.files.urls import has_secret, in_store, scheme, secret, shown
from ..disk import move
from ..errors import RunError

PATIENCE = "ETUDE_STORE_PATIENCE"
"""The variable with the seconds for which requests to a store that does not answer are retried."""
PATIENCE_SECONDS = 120.0
THREADS = 8
"""The number of objects that a process reads or writes in parallel."""

T = TypeVar("T")


class StoreError(RunError):
    """A request to a store failed.

    Attributes:
        why: the reason, and its kind.
    """

    def __init__(self, message: str, why: Why) -> None:
        super().__init__(message, why.help)
        self.why = why


class Object(NamedTuple):
    """An object in a store: its size in bytes, its tag, which changes with the content, and when it
    was written, in seconds since 1970."""

    size: int
    tag: str
    written: float


class Bucket:
    """A folder in an object store.

    Names of objects are relative to the folder. All methods raise StoreError.

    Args:
        url: for example s3://bucket/runs/small.

    Raises: RunError: the URL is not of a store, or contains a secret.
    """

    def __init__(self, url: str) -> None:
        if has_secret(url):
            raise RunError(*secret(url, "a run or a model"))
        if not in_store(url):
            raise RunError(
                f"{shown(url)} is not a URL of an object store",
                "write a path, or a URL such as s3://bucket/folder",
            )
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any, str] | None = None
        self.patient = True

    def place(self, name: str = "") -> str:
        """The URL of an object."""
        return f"{self.url}/{name}" if name else self.url

    def listed(self, prefix: str = "") -> dict[str, Object]:
        """The objects whose names begin with `prefix`, by name."""

        def find(system: Any, root: str) -> dict[str, Object]:
            start = f"{root}/{prefix}".rstrip("/")
            if not prefix and scheme(self.url) == "s3":
                system.call_s3("list_objects_v2", Bucket=root.partition("/")[0], MaxKeys=1)
            found = system.find(start, detail=True)
            return {
                path.removeprefix(f"{root}/"): _object(about)
                for path, about in found.items()
                if path.startswith(f"{root}/") and about.get("type") != "directory"
            }

        return self._do("listed", prefix, find)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """The content of an object, or its bytes from `start` up to `end`; None if it does not
        exist."""

        def cat(system: Any, root: str) -> bytes:
            return system.cat_file(f"{root}/{name}", start=start or None, end=end)

        try:
            return self._do("read", name, cat)
        except StoreError as problem:
            if problem.why.kind == "missing":
                return None
            raise

    def about(self, name: str) -> Object | None:
        """Size, tag and time of an object; None if it does not exist."""
        try:
            found = self._do("read", name, lambda system, root: system.info(f"{root}/{name}"))
        except StoreError as problem:
            if problem.why.kind == "missing":
                return None
            raise
        return _object(found) if found.get("type") != "directory" else None

    def write(self, name: str, content: bytes) -> None:
        """Creates or replaces an object, atomically."""
        self._do("written", name, lambda system, root: system.pipe_file(f"{root}/{name}", content))

    def create(self, name: str, content: bytes) -> bool:
        """Creates an object unless it exists; returns whether it did."""

        def make(system: Any, root: str) -> bool:
            try:
                system.pipe_file(f"{root}/{name}", content, mode="create")
            except FileExistsError:
                return False
            return True

        return self._do("written", name, make)

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Replaces an object if it still has this tag; returns whether it did.

        S3 compares and writes atomically. For other stores the tag is read first, which leaves a
        short gap.
        """

        def swap(system: Any, root: str) -> bool:
            path = f"{root}/{name}"
            if scheme(self.url) != "s3":
                if _object(system.info(path)).tag != tag:
                    return False
                system.pipe_file(path, content)
                return True
            bucket, _, key = path.partition("/")
            try:
                system.call_s3(
                    "put_object", Bucket=bucket, Key=key, Body=content, IfMatch=f'"{tag}"'
                )
            except (OSError, FileNotFoundError) as problem:
                if _precondition(problem):
                    return False
                raise
            return True

        return self._do("written", name, swap)

    def put(self, files: Mapping[str, Path]) -> None:
        """Uploads files: name → file. Large files go up in parts."""

        def one(item: tuple[str, Path]) -> None:
            name, path = item
            self._do(
                "written",
                name,
                lambda system, root: system.put_file(str(path), f"{root}/{name}"),
            )

        _each(one, files.items())

    def get(self, names: Mapping[str, Path]) -> None:
        """Downloads objects: name → file. Each file is complete or absent."""

        def one(item: tuple[str, Path]) -> None:
            name, path = item
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            try:
                self._do(
                    "read",
                    name,
                    lambda system, root: system.get_file(f"{root}/{name}", str(partial)),
                )
                move(partial, path)
            finally:
                partial.unlink(missing_ok=True)

        _each(one, names.items())

    def copy(self, names: Mapping[str, str]) -> None:
        """Copies objects within the store: name → new name."""

        def one(item: tuple[str, str]) -> None:
            old, new = item
            self._do(
                "written",
                new,
                lambda system, root: system.cp_file(f"{root}/{old}", f"{root}/{new}"),
            )

        _each(one, names.items())

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; ignores missing ones."""

        def one(name: str) -> None:
            def away(system: Any, root: str) -> None:
                with suppress(FileNotFoundError):
                    system.rm_file(f"{root}/{name}")

            self._do("removed", name, away)

        _each(one, names)

    def _do(self, done: str, name: str, what: Callable[[Any, str], T]) -> T:
        """Calls `what` with the file system and the path of the folder in it; retries while the
        store does not answer, up to the patience."""
        end = time.monotonic() + (patience() if self.patient else 0.0)
        pause = 0.5
        while True:
            # Every file system has its own errors, so catch all of them.
            try:
                return what(*self._system())
            except Exception as error:
                if isinstance(error, OSError) and error.filename and _local(error):
                    raise  # the local disk, not the store
                reason = why(self.url, error)
                if reason.passes and time.monotonic() + pause < end:
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)
                    continue
                raise StoreError(
                    f"{shown(self.place(name))} cannot be {done}: {reason.text}", reason
                ) from error

    def _system(self) -> tuple[Any, str]:
        # A forked process needs its own file system object.
        if self._opened is None or self._opened[0] != os.getpid():
            system, path = opened(self.url)
            self._opened = (os.getpid(), system, path)
        return self._opened[1:]


def patience() -> float:
    """Seconds for which requests to a store that does not answer are retried."""
    try:
        return float(os.environ[PATIENCE])
    except (KeyError, ValueError):
        return PATIENCE_SECONDS


def _each(do: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Handles items in parallel; stops at the first error."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(do, items):
            pass


def _object(about: Mapping[str, Any]) -> Object:
    written = about.get("LastModified") or about.get("mtime") or about.get("last_modified")
    tag = about.get("ETag") or about.get("etag") or about.get("generation") or written
    seconds = written.timestamp() if isinstance(written, datetime) else 0.0
    return Object(int(about.get("size") or 0), str(tag).strip('"'), seconds)


def _precondition(error: BaseException) -> bool:
    """Whether an error says that the object was changed by another writer."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            code = response.get("Error", {}).get("Code")
            return code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412")
        seen = seen.__cause__ or seen.__context__
    return False


def _local(error: OSError) -> bool:
    return os.path.lexists(str(error.filename)) or os.path.isabs(str(error.filename))
