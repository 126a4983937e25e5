"""Writes files completely or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex


def write_whole(path: Path, save: Callable[..., None]) -> None:
    """Writes a file completely or not at all; several processes may write the same one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library creates temporary files readable only by their owner, whatever the umask says.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            save(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
