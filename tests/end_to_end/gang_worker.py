"""The worker of a gang in tests, in place of etude's: its rank 1 may see artifacts late.

TEST_SILENT says after how many seconds a rank without a sign of life is lost. With TEST_LATE, rank
1 sees nothing of an artifact for so many seconds after it has come to be, as on file systems of
clusters, and writes each time into the file `hidden` beside the run folder.
"""

import builtins
import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.runtime import ranks, worker
from etude.runtime.stopping import listening


def see_late(folder: Path, seconds: float) -> None:
    """Hides the artifacts of a run folder from this process for a while."""
    artifacts = f"{folder}/artifacts/"
    stat = os.stat
    hidden = folder.with_name("hidden")

    def require_seen(path: Any) -> None:
        if not isinstance(path, str | os.PathLike):
            return
        text = os.fspath(path)
        if not isinstance(text, str) or not text.startswith(artifacts):
            return
        key = text.removeprefix(artifacts).partition("/")[0]
        found = stat(artifacts + key)
        if time.time() - max(found.st_ctime, found.st_mtime) < seconds:
            with real_open(hidden, "a") as file:
                file.write(f"{text}\n")
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)

    def late(function: Callable[..., Any]) -> Callable[..., Any]:
        def looking(path: Any, *arguments: Any, **options: Any) -> Any:
            require_seen(path)
            return function(path, *arguments, **options)

        return looking

    real_open = builtins.open
    builtins.open = late(builtins.open)
    for name in ("stat", "lstat", "open", "listdir", "scandir"):
        setattr(os, name, late(getattr(os, name)))


if __name__ == "__main__":
    ranks.SILENT_SECONDS = float(os.environ.get("TEST_SILENT", ranks.SILENT_SECONDS))
    ranks.LATE_SECONDS = min(ranks.LATE_SECONDS, ranks.SILENT_SECONDS / 2)
    run_folder = Path(sys.argv[1])
    if os.environ["RANK"] == "1" and "TEST_LATE" in os.environ:
        see_late(run_folder, float(os.environ["TEST_LATE"]))
    with listening():
        sys.exit(worker.main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
