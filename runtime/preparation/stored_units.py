"""Units of a data set whose run folder is in a store: what one part has made, others find there.

A unit's files go up, then its `unit.json`, which completes it.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import DataError
from ..stores.remote import Remote, remote_above

UNIT = "unit.json"


class StoredUnits:
    """The units of a data set in a store.

    All methods raise Interrupted: the store cannot be reached; what it lacks stays here.

    Args:
        folder: the local folder of the units.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        self._remote = remote
        self._folder = folder
        with remote.going():
            self._sizes = {
                name: about.size for name, about in remote.bucket.listed(self._name("")).items()
            }

    @classmethod
    def of(cls, folder: Path) -> "StoredUnits | None":
        """The units in the store that a local folder belongs to, if any."""
        remote = remote_above(folder / UNIT)
        return None if remote is None else cls(remote, folder)

    def size(self, unit: str, name: str) -> int | None:
        """The bytes of a unit's file in the store; None if it is not there."""
        return self._sizes.get(self._name(f"{unit}/{name}"))

    def take_descriptions(self, numbers: Iterable[int]) -> None:
        """Fetches the `unit.json` of units that are in the store and not here."""
        names = [f"{number:06}/{UNIT}" for number in numbers]
        wanted = [
            self._name(name)
            for name in names
            if self._name(name) in self._sizes and not (self._folder / name).is_file()
        ]
        with self._remote.going():
            self._remote.get_small(wanted)

    def take(self, number: int, files: Mapping[str, int], sums: Mapping[str, str]) -> None:
        """Fetches the files of a unit that are not here.

        Args:
            files: name → bytes.
            sums: name → SHA-256 checksum, of files that have one.

        Raises: DataError: an object is not what was written.
        """
        unit = self._folder / f"{number:06}"
        wanted = [name for name, size in files.items() if _size(unit / name) != size]
        with self._remote.going():
            self._remote.get_small([self._name(f"{unit.name}/{name}") for name in wanted])
        for name in wanted:
            known = sums.get(name)
            if _size(unit / name) != files[name] or known not in (None, _digest(unit / name)):
                place = self._remote.bucket.place(self._name(unit.name))
                shutil.rmtree(unit)
                raise DataError(
                    f"{place}/{name} is not what was written",
                    f"remove {place}; the next run tokenizes that part again",
                )

    def send(self, number: int, files: Iterable[str]) -> None:
        """Sends what is here of a unit and not in the store."""
        unit = self._folder / f"{number:06}"
        own = {
            self._name(f"{unit.name}/{name}"): unit / name
            for name in files
            if _size(unit / name) not in (None, self.size(unit.name, name))
        }
        last = self._name(f"{unit.name}/{UNIT}")
        if not own and last in self._sizes:
            return
        with self._remote.going():
            self._remote.put_as(own)
            self._remote.put_as({last: unit / UNIT})
        self._sizes |= {name: path.stat().st_size for name, path in own.items()}
        self._sizes[last] = (unit / UNIT).stat().st_size

    def _name(self, name: str) -> str:
        """The object for a file of the units."""
        prefix = self._remote.name(self._folder / UNIT).removesuffix(UNIT)
        return f"{prefix}{name}" if name else prefix.rstrip("/")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
