"""The disk: files that are there as a whole or not at all, and one message if it takes none.

A rename is not enough for that. A file system may put a new name on the disk before the content, or
neither, and a machine may lose power in between. So the content goes to the disk first, then the
name: `fsync` of the file, the rename, `fsync` of the folder (fsync(2)).
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from socket import gaierror
from typing import BinaryIO

from ..compiler.as_written import in_bytes
from .errors import RunError, Stopped

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that have nothing to do for a folder."""
_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a limit of the system does not allow a file that large",
}
_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = tuple(
    getattr(errno, name, errno.EIO)  # not all systems have all
    for name in (
        *("EIO", "ESTALE", "ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EREMOTEIO"),
        "EUCLEAN",
    )
)
_INSIDE = re.compile(r"\(os error (\d+)\)")
"""The system's error in a message of tokenizers or safetensors, which raise their own errors."""
_CUT_OFF = re.compile(r"\d+ requested and \d+ written|inline_container|unexpected pos")
"""What NumPy and PyTorch say if the disk takes only a part, without the system's error."""
KEPT = "everything finished so far is kept"


def write(path: Path, content: str | bytes) -> None:
    """Writes a file completely or not at all, and durably.

    Raises: OSError: with the name of the file.
    """
    data = content.encode() if isinstance(content, str) else content
    _write(path, lambda file: file.write(data))


def write_by(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """The same, of what `save` writes, in a folder that is made if it is missing. Several processes
    may write the same file at once.

    Raises: OSError: with the name of the file.
    """
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, save)


def clear_partial(folder: Path) -> None:
    """Removes what a process that was killed while it wrote has left in a folder and below."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)


def _write(path: Path, save: Callable[[BinaryIO], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{token_hex(4)}.partial")
    try:
        with named(path):
            with partial.open("xb") as file:
                save(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Gives an error of the disk the name of the file that is written, which writing leaves out."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None or Path(problem.filename).parent == path.parent:
            problem.filename = str(path)
        raise


def move(source: Path, target: Path) -> None:
    """Renames a file or folder, once all that it holds is on the disk. A file of that name is
    replaced, a folder must be empty.

    Raises: OSError.
    """
    settle(source)
    os.replace(source, target)
    sync(target.parent)


def link(source: Path, name: Path) -> None:
    """Makes a symbolic link; one of that name is replaced, and is never missing.

    Raises: OSError: with the name of the link.
    """
    partial = name.with_name(f".{name.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(source)
        os.replace(partial, name)
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(name)) from None


def settle(path: Path) -> None:
    """Puts a file, or a folder with all that it holds, on the disk.

    Raises: OSError.
    """
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for file in (Path(folder, name) for name in names):
                if file.is_file() and not file.is_symlink():
                    sync(file)
            sync(Path(folder))
    else:
        sync(path)


def sync(path: Path) -> None:
    """Puts the content of a file, or the names in a folder, on the disk.

    Raises: OSError: with the name of the file.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as problem:
        if problem.errno not in _NO_FOLDERS:
            raise OSError(problem.errno, problem.strerror, str(path)) from None
    finally:
        os.close(file)


@contextmanager
def disk(path: Path, kept: str = KEPT) -> Iterator[None]:
    """Turns what the disk does not take into a message.

    Args:
        path: what is written, for errors that name no file.
        kept: what is not lost.

    Raises: Stopped.
    """
    try:
        yield
    except Exception as problem:
        found = reasons(problem, path)
        if found is None:
            raise
        said, do = found
        name = getattr(problem, "filename", None) or path
        raise Stopped(f"{name} {said}", f"{do} and run again: {kept}") from None


def reasons(problem: BaseException, path: Path, needs: int = 0) -> tuple[str, str] | None:
    """What is said of a file that the disk refuses, and what to do; None for other errors.

    Args:
        needs: the bytes that were to be written, if known.
    """
    if isinstance(problem, RunError | ConnectionError | TimeoutError | gaierror):
        return None
    # Not the text of the error, which leaves out its arguments once it has the name of a file.
    text = " ".join(map(str, problem.args))
    inside = _INSIDE.search(text) if not isinstance(problem, OSError) else None
    number: int | None = int(inside[1]) if inside else getattr(problem, "errno", None)
    if number is None and _CUT_OFF.search(text):
        why = f"only a part of it was written{_room(path, needs)}"
        return f"cannot be written: {why}", "free some space"
    if number is None or not (inside or isinstance(problem, OSError)):
        return None
    if number in _SPACE:
        room = _room(path, needs) if number == errno.ENOSPC else ""
        return f"cannot be written: {_SPACE[number]}{room}", "free some space"
    said = f"cannot be used: {os.strerror(number).lower()}"
    if number in _ACCESS:
        return said, "make it writable for this user"
    return said, "look after the disk (`dmesg` may say more)" if number in _BROKEN else "fix that"


def _room(path: Path, needs: int) -> str:
    """How much space was needed, if that is known, and how much there is."""
    above = next((each for each in path.absolute().parents if each.is_dir()), None)
    try:
        free = shutil.disk_usage(above).free if above else None
    except OSError:
        free = None
    said = [f"it needs about {in_bytes(needs)}"] if needs else []
    said += [f"{in_bytes(free)} are free"] if free is not None else []
    return f" ({', '.join(said)})" if said else ""
