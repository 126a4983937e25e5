"""What a job ran on: ranks, hosts, device, layout and versions, in its artifact's manifest.

A job's key does not depend on these (see `compiler/plan/keys.py`), and a job may continue on other
hardware than it started on. So each start is recorded, with the first step that it did.
"""

import json
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...compiler.pipelines import DEFAULT
from ..disk import write
from .saved import CHECKPOINTS, steps_saved

RAN = "ran.json"
"""The file in a work folder with the starts of its job."""
_LIBRARIES = ("etude", "torch", "torchtitan", "numpy", "transformers", "tokenizers", "lm-eval")
_DEGREES = ("replicate", "shard", "tensor", "context", "pipeline", "interleave", "expert")


def begin(work: Path, job: Any) -> None:
    """Records in a job's work folder that it starts or continues, in this process or its gang.

    Raises: OSError: the folder cannot be written.
    """
    before, now = starts(work), _now(job) | {"from_step": _saved(work)}
    if before and _same(before[-1], now):
        return
    # This start redoes the steps of starts that left no checkpoint.
    kept = [each for each in before if each["from_step"] < now["from_step"]]
    write(work / RAN, json.dumps([*kept, now], indent=1) + "\n")


def starts(work: Path) -> list[dict[str, Any]]:
    """The starts of the job in a work folder, oldest first: `ranks`, `hosts`, `device`, `layout`
    (degrees above 1, and the schedule of a pipeline other than 1F1B), `versions`, and `from_step`,
    the number of steps done before."""
    try:
        return json.loads((work / RAN).read_bytes())
    # From an earlier version, or truncated by a crash of the machine.
    except (OSError, ValueError, RecursionError):
        return []


def in_words(start: dict[str, Any]) -> str:
    """A start's hardware, in words: `2 ranks, tensor 2`."""
    ranks = "1 rank" if start["ranks"] == 1 else f"{start['ranks']} ranks"
    return ", ".join([ranks, *(f"{name} {degree}" for name, degree in start["layout"].items())])


def _now(job: Any) -> dict[str, Any]:
    mesh = getattr(job, "resources", None)
    degrees = {name: getattr(mesh, name) for name in _DEGREES} if mesh else {}
    layout = {name: degree for name, degree in degrees.items() if degree > 1}
    if mesh and mesh.schedule != DEFAULT:
        layout["schedule"] = mesh.schedule
    return {
        "ranks": mesh.world_size if mesh else 1,
        "hosts": _hosts() if mesh and mesh.world_size > 1 else 1,
        "device": mesh.device if mesh else "cpu",
        "layout": layout,
        "versions": dict(_versions()),
    }


def _hosts() -> int:
    """The number of hosts of the gang; called on its rank 0."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    return -(-ranks // int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in _LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def _saved(work: Path) -> int:
    """The step of the job's newest checkpoint; 0 if it has none."""
    return max(steps_saved(work / CHECKPOINTS), default=0)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {**one, "from_step": 0} == {**other, "from_step": 0}
