"""The files that torchtitan's profiler has written."""

from pathlib import Path

from .store import PROFILES


def profiles(folder: Path) -> dict[str, list[Path]]:
    """Stage → its traces and records of memory, in the order of their names; only what is
    complete.

    Args:
        folder: of the run.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / PROFILES).glob("*/*")):
        if path.is_file() and not path.name.startswith("."):
            found.setdefault(path.parent.name, []).append(path)
    return found
