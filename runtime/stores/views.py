"""Run folders in stores for commands that only read: a local folder shows the store's content."""

import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError
from . import places
from .pulling import Tags, view
from .remote import MANIFEST, SUMS, Remote, begin, remote_above, remote_of

LOOK_SECONDS = 5.0
"""Seconds between two listings of a store while a run is watched."""
_shown: dict[Path, "_Shown"] = {}


class _Shown:
    """A view, and what it has of growing files."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.tags: Tags = {}
        self.looked = float("-inf")

    def look(self) -> None:
        view(self.remote, self.tags)
        self.looked = time.monotonic()


def seen(url: str) -> Path:
    """The local folder that shows a run folder in a store, of a recipe or of a variant.

    Raises: RunError: the URL is not of a store, or the store cannot be reached.
    """
    home, variant = places.split(url)
    remote = places.viewing(home)
    shown = _shown[remote.home] = _Shown(remote)
    shown.look()
    if not variant:
        return remote.home
    return _linked(remote.home, variant)


def look_again(folder: Path) -> None:
    """Updates a view; does nothing for other folders.

    Raises: RunError: the store cannot be reached.
    """
    for home in (folder, *folder.parents[:2]):
        shown = _shown.get(home)
        if shown is not None and time.monotonic() - shown.looked > LOOK_SECONDS:
            shown.look()


@contextmanager
def skeleton(url: str) -> Iterator[Path]:
    """A copy of a run folder in a store, with files of the right sizes but without content, except
    those that describe the folder's structure.

    Raises: RunError: the URL is not of a store, or the store cannot be reached.
    """
    home, variant = places.split(url)
    with tempfile.TemporaryDirectory(prefix="etude-") as temporary:
        remote = begin(Path(temporary).resolve(), home)
        view(remote, {})
        for name, about in remote.objects.items():
            path = remote.home / name
            if name.startswith(("artifacts/", "work/", "cache/")) and not _told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.truncate(about.size)
        yield _linked(remote.home, variant) if variant else remote.home


def remove(folder: Path, paths: Collection[Path]) -> None:
    """Removes from a store what a skeleton of it shows: files that mark completeness go first.

    Raises: RunError: the store cannot be reached or denies access.
    """
    remote = remote_of(folder) or remote_above(folder)
    if remote is None:
        raise RunError(f"{folder} shows no store")
    working = places.local_folder(remote.url)
    for path in paths:
        prefix = remote.name(path)
        names = [n for n in remote.objects if n == prefix or n.startswith(f"{prefix}/")]
        first = [n for n in names if n.rpartition("/")[2] in (MANIFEST, SUMS)]
        remote.bucket.remove(first)
        remote.bucket.remove([name for name in names if name not in first])
        shutil.rmtree(working / prefix, ignore_errors=True)


def _told(path: Path) -> bool:
    return path.name == MANIFEST and path.is_file()


def _linked(home: Path, variant: str) -> Path:
    """The folder of a variant, with the links that a store cannot hold."""
    folder = home / "variants" / variant
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("artifacts", "work", "cache"):
        (home / name).mkdir(exist_ok=True)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..") / ".." / name)
    return folder
