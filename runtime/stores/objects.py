"""A folder in an object store: reading, writing, listing, and what is said where that fails."""

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
from ..errors import RunError

PATIENCE = "ETUDE_STORE_PATIENCE"
"""The variable with the seconds for which a store that does not answer is asked again."""
PATIENCE_SECONDS = 120.0
THREADS = 8
"""Objects that a process reads or writes at a time."""

T = TypeVar("T")


class StoreError(RunError):
    """A store does not do what it is asked.

    Attributes:
        why: the reason, and of what kind it is.
    """

    def __init__(self, message: str, why: Why) -> None:
        super().__init__(message, why.help)
        self.why = why


class Object(NamedTuple):
    """What a store says of an object: its size in bytes, its tag, which changes with the content,
    and when it was written, in seconds since 1970."""

    size: int
    tag: str
    written: float


class Bucket:
    """A folder in an object store.

    Names of objects are relative to the folder. All methods raise StoreError.

    Args:
        url: such as s3://bucket/runs/small.

    Raises: RunError: the URL is no store's, or has a secret in it.
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
        """The objects below a name, by their names; none where there is nothing."""

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
        """The content of an object, or its bytes from `start` up to `end`; None where there is
        none."""

        def cat(system: Any, root: str) -> bytes:
            return system.cat_file(f"{root}/{name}", start=start or None, end=end)

        try:
            return self._do("read", name, cat)
        except StoreError as problem:
            if problem.why.kind == "missing":
                return None
            raise

    def about(self, name: str) -> Object | None:
        """What the store says of an object; None where there is none."""
        try:
            found = self._do("read", name, lambda system, root: system.info(f"{root}/{name}"))
        except StoreError as problem:
            if problem.why.kind == "missing":
                return None
            raise
        return _object(found) if found.get("type") != "directory" else None

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces an object, at once."""
        self._do("written", name, lambda system, root: system.pipe_file(f"{root}/{name}", content))

    def create(self, name: str, content: bytes) -> bool:
        """Makes an object where there is none; whether it did."""

        def make(system: Any, root: str) -> bool:
            try:
                system.pipe_file(f"{root}/{name}", content, mode="create")
            except FileExistsError:
                return False
            return True

        return self._do("written", name, make)

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Replaces an object that still has this tag; whether it did.

        S3 compares and writes at once. Of other stores the tag is asked first, which leaves a
        moment in between.
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
        """Uploads files: name → file; large ones in parts."""

        def one(item: tuple[str, Path]) -> None:
            name, path = item
            self._do(
                "written",
                name,
                lambda system, root: system.put_file(str(path), f"{root}/{name}"),
            )

        _each(one, files.items())

    def get(self, names: Mapping[str, Path]) -> None:
        """Downloads objects: name → file, which is there afterwards whole or not at all."""

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
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)

        _each(one, names.items())

    def copy(self, names: Mapping[str, str]) -> None:
        """Copies objects inside of the store: name → new name."""

        def one(item: tuple[str, str]) -> None:
            old, new = item
            self._do(
                "written",
                new,
                lambda system, root: system.cp_file(f"{root}/{old}", f"{root}/{new}"),
            )

        _each(one, names.items())

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there are no problem."""

        def one(name: str) -> None:
            def away(system: Any, root: str) -> None:
                with suppress(FileNotFoundError):
                    system.rm_file(f"{root}/{name}")

            self._do("removed", name, away)

        _each(one, names)

    def _do(self, done: str, name: str, what: Callable[[Any, str], T]) -> T:
        """Does something with the file system and the path of the folder in it, again and again
        while the store does not answer, up to the patience."""
        end = time.monotonic() + (patience() if self.patient else 0.0)
        pause = 0.5
        while True:
            # Every file system has errors of its own, so that all of them are caught here.
            try:
                return what(*self._system())
            except Exception as error:
                if isinstance(error, OSError) and error.filename and _local(error):
                    raise  # the disk, not the store
                reason = why(self.url, error)
                if reason.passes and time.monotonic() + pause < end:
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)
                    continue
                raise StoreError(
                    f"{shown(self.place(name))} cannot be {done}: {reason.text}", reason
                ) from error

    def _system(self) -> tuple[Any, str]:
        # A process that was forked has a file system of its own.
        if self._opened is None or self._opened[0] != os.getpid():
            system, path = opened(self.url)
            self._opened = (os.getpid(), system, path)
        return self._opened[1:]


def patience() -> float:
    """Seconds for which a store that does not answer is asked again."""
    try:
        return float(os.environ[PATIENCE])
    except (KeyError, ValueError):
        return PATIENCE_SECONDS


def _each(do: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Does something with many things at a time; the first error ends it."""
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(do, items):
            pass


def _object(about: Mapping[str, Any]) -> Object:
    written = about.get("LastModified") or about.get("mtime") or about.get("last_modified")
    tag = about.get("ETag") or about.get("etag") or about.get("generation") or written
    seconds = written.timestamp() if isinstance(written, datetime) else 0.0
    return Object(int(about.get("size") or 0), str(tag).strip('"'), seconds)


def _precondition(error: BaseException) -> bool:
    """Whether an error says that another has written the object meanwhile."""
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
