"""Redirects the output of libraries to the run folder, away from the terminal.

torch, transformers, datasets, W&B and programs that they start write to the process's standard
output and standard error, each in its own way. So both are redirected to a file, and etude writes
to copies of the originals.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from ..runtime.run_folder.store import LOG


@contextmanager
def aside(folder: Path) -> Iterator[tuple[TextIO, Callable[[], None]]]:
    """Redirects standard output and standard error to the run's log, and restores both at the end.

    If no run folder is created, because the run is rejected, the text goes to standard error.

    Yields: the old standard output, and a function that moves the output so far into the run
        folder's log once the folder exists; later output goes there directly.
    """
    kept = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 (closed at the end)
    settled = False

    def settle() -> None:
        nonlocal kept, settled
        if settled or not folder.is_dir():
            return
        try:
            log = (folder / LOG).open("ab", buffering=0)
        except OSError:
            return  # a full disk is reported where something important is written
        settled = True
        with suppress(OSError):
            _copy(kept.fileno(), log.fileno())
        _turn(log.fileno())
        kept.close()
        kept = log

    _flush()
    before = os.dup(1), os.dup(2)
    shown = None
    if _is_ours(sys.stdout):
        shown = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    _turn(kept.fileno())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield shown or sys.stdout, settle
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        settle()
        _flush()
        for descriptor, old in zip((1, 2), before, strict=True):
            os.dup2(old, descriptor)
        if not settled:
            with suppress(OSError):
                _copy(kept.fileno(), 2)
        kept.close()
        for old in before:
            os.close(old)
        if shown:
            with suppress(BrokenPipeError):
                shown.close()


def _is_ours(stream: TextIO) -> bool:
    """Whether a stream is the process's standard output, not a notebook's or a test's."""
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):
        return False


def _turn(file: int) -> None:
    _flush()
    for descriptor in (1, 2):
        os.dup2(file, descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def _copy(source: int, target: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    with os.fdopen(os.dup(source), "rb") as text, os.fdopen(os.dup(target), "ab") as log:
        shutil.copyfileobj(text, log)
