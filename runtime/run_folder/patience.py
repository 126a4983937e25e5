"""Waiting for files from rank 0 that this host's file system does not show yet."""

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from ..errors import RunError

PATIENCE_SECONDS = 180.0
"""Three times the longest that cluster file systems cache that a file does not exist."""


def wait_for(paths: Iterable[Path], rank: int) -> None:
    """Waits for files that rank 0 has seen.

    Raises: RunError: they do not appear.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    for path in paths:
        pause = 0.05
        while not path.exists():
            if time.monotonic() > end:
                raise RunError(
                    f"rank {rank} on {socket.gethostname()} has waited {PATIENCE_SECONDS:.0f} s "
                    f"for {path.absolute()}, which rank 0 sees",
                    "put the run folder on a file system that all nodes share, and run again",
                )
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            _look_again(path)


def _look_again(path: Path) -> None:
    """Makes the file system refresh its cached view of a folder: opening it asks the server."""
    for folder in (path.parents[1], path.parent):
        try:
            os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            return
