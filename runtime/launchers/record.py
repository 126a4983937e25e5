"""The record of what a launch has queued, in `launch.json` of the run folder; `etude cancel`,
`etude status` and the next launch read it.

    {"engine": "slurm", "at": 1790000000.0, "queued": {"jobs": ["4711", "4712"]}}
    {"engine": "kubernetes", "at": …, "queued": {"namespace": "default", "instance": "etude-…"}}
    {"engine": "skypilot", "at": …, "queued": {"name": "etude-quickstart"}}
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..disk import disk, write
from ..errors import RunError
from ..stores.remote import LAUNCH, remote_above


@dataclass(frozen=True)
class Launch:
    """A run that was given to an engine.

    Attributes:
        engine: "slurm", "kubernetes" or "skypilot".
        queued: the engine's names for it.
        at: the time, in seconds since 1970.
    """

    engine: str
    queued: Mapping[str, Any]
    at: float = field(default_factory=time.time)


def save(folder: Path, launch: Launch) -> None:
    """Writes the record of a launch, completely or not at all; also to the store of a run.

    Raises:
        Stopped: the file cannot be written.
        Interrupted: the store cannot be reached.
    """
    path = folder / LAUNCH
    text = json.dumps({"engine": launch.engine, "at": launch.at, "queued": dict(launch.queued)})
    with disk(path):
        folder.mkdir(parents=True, exist_ok=True)
        write(path, text + "\n")
    if remote := remote_above(path):
        remote.record(path)


def load(folder: Path) -> Launch | None:
    """The last launch into a run folder, if any.

    Raises: RunError: the file cannot be read.
    """
    path = folder / LAUNCH
    try:
        said = json.loads(path.read_bytes())
        return Launch(str(said["engine"]), dict(said["queued"]), float(said["at"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as problem:
        raise RunError(
            f"{path} cannot be read: {problem}",
            "find the jobs with the engine's own command, cancel them there, and remove the file",
        ) from None


def forget(folder: Path) -> None:
    """Removes the record, if any, also from the store of a run: nothing is queued any more.

    Raises:
        Stopped: the file cannot be removed.
        Interrupted: the store cannot be reached.
    """
    path = folder / LAUNCH
    with disk(path):
        path.unlink(missing_ok=True)
    if remote := remote_above(path):
        with remote.going():
            remote.bucket.remove([remote.name(path)])
