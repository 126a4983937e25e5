"""The lease of a run folder in an object store: one object, changed only by who knows its tag."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..stores.objects import Bucket, StoreError
from .lease import LEASE, Lease, parsed


class StoredLease(Lease):
    """The lease of a run folder in a store, and that of its local folder.

    The store creates an object only if it does not exist, and replaces it only if its tag is still
    the one that the writer has seen. So of two processes that want the folder, or to succeed a dead
    owner, only one gets it.
    """

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        super().__init__(folder)
        self.name = bucket.url
        self._bucket = bucket
        self._here = Lease(folder)
        self._tag = ""

    def take(self, on_wait: Callable[[str], None] = lambda message: None) -> None:
        self._here.take(on_wait)
        if not self._here.mine:  # the process that started this one has both
            return
        try:
            super().take(on_wait)
        except BaseException:
            self._here.release()
            raise

    def include(self, process: int) -> None:
        self._here.include(process)
        with suppress(StoreError):
            super().include(process)

    @property
    def token(self) -> str:
        return self._here.token

    def require(self) -> None:
        self._here.require()
        super().require()

    def release(self) -> None:
        try:
            with suppress(StoreError):  # it looks dead soon
                super().release()
        finally:
            self._here.release()

    def _look(self) -> dict[str, Any] | None:
        # Tag first: if the lease changes in between, the tag is outdated, and replacing fails.
        about = self._bucket.about(LEASE)
        content = self._bucket.read(LEASE)
        self._tag = about.tag if about else ""
        return None if content is None else parsed(content) or {}

    def _create(self, path: Path) -> bool:
        return self._bucket.create(LEASE, self._content())

    def _change(self) -> None:
        self._bucket.replace(LEASE, self._content(), self._tag)

    def _remove(self) -> None:
        self._bucket.remove([LEASE])

    def _succeed(self, path: Path, dead: Mapping[str, Any], on_wait: Callable[[str], None]) -> bool:
        now = self._look()
        if now is None or now.get("token") != dead.get("token"):
            return False
        return self._bucket.replace(LEASE, self._content(), self._tag)
