"""Writes the output files of commands."""

import sys
from pathlib import Path

from .common import problem


def write_new(path: Path, text: str, *, force: bool) -> bool:
    """Writes a new file, completely or not at all; reports why if it cannot.

    Args:
        force: whether an existing file is replaced.
    """
    from ..runtime.disk import write

    if path.exists() and not force:
        problem(f"{path} already exists", "choose another name, or --force to replace it")
        return False
    try:
        write(path, text)
    except OSError as trouble:
        problem(f"{path} cannot be written: {(trouble.strerror or str(trouble)).lower()}")
        return False
    return True


def write_over(path: str | Path, text: str) -> None:
    """Writes a file, completely or not at all: a file of that name stays as it is on an error. What
    a link leads to is replaced, and a device or pipe is written to.

    Raises: OSError: with the name of the file.
    """
    from ..runtime.disk import named, write

    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        with named(target):
            target.write_text(text, encoding="utf-8")
    else:
        mode = target.stat().st_mode if target.exists() else None
        write(target, text)
        if mode is not None:
            target.chmod(mode)


def read_text(path: str, most: int) -> str | None:
    """The text of a file, or of standard input for `-`; None, after a message, on an error."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(most + 1)
    except OSError as trouble:
        problem(f"{path} cannot be read: {(trouble.strerror or str(trouble)).lower()}")
        return None
    if len(data) > most:
        problem(f"{path} is larger than {most // 10**6} MB, too large for a configuration")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as trouble:
        line = data[: trouble.start].count(b"\n") + 1
        problem(f"{path} is not UTF-8 text (line {line})", "save it as UTF-8")
        return None
