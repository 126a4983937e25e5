"""Gives a run to SkyPilot, whose controller then starts one phase after the other."""

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import Plan
from ..disk import disk, write
from ..errors import RunError
from ..run_folder.store import Store
from .kubernetes import as_yaml
from .programs import call, require
from .record import Launch, save
from .skypilot import Task

PROGRAM: str = "sky"
PIPELINE = "skypilot.yaml"
PACKED = "plan.json.gz"
_HELP = "`sky check` says which clouds it may use; `sky jobs queue` shows what is queued"


def pack(plan: Plan, folder: Path) -> None:
    """Writes the plan, gzipped, where the tasks pick it up.

    Raises: Stopped: the disk is full.
    """
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress(plan.to_json().encode() + b"\n", mtime=0)
        write(folder / PACKED, packed)


def ready(secrets: Sequence[str]) -> None:
    """Checks whether a launch can be given to SkyPilot.

    Raises: RunError: `sky` or a secret is missing.
    """
    require(
        "sky",
        "install it in a separate environment: pip install skypilot; or write the tasks with "
        "--dry-run",
    )
    missing = [name for name in secrets if not os.environ.get(name)]
    if missing:
        raise RunError(
            f"the site file names the secret {missing[0]}, which is not set in this shell",
            f"set it: export {missing[0]}=…, or remove it from `secrets` under [skypilot]",
        )


def require_not_queued(name: str, folder: Path) -> None:
    """
    Args:
        name: the managed job's name.
        folder: the local run folder.

    Raises: RunError: the run, or a part of it, is queued or running.
    """
    if at_work({"name": name}):
        raise RunError(
            f"this run is queued already, as the managed job {name}",
            f"wait for it (sky jobs logs -n {name}), or cancel it: etude cancel "
            f"{Store(folder).name}",
        )


def submit(tasks: Sequence[Task], secrets: Sequence[str], folder: Path, *others: Path) -> str:
    """Queues the tasks as one managed job.

    Args:
        folder: the local run folder, for the pipeline's file and the record of the launch.
        others: the folders of other runs that are a part of it, for its record.

    Returns: the job's name.
    Raises: RunError: SkyPilot rejects them.
    """
    name = tasks[0]["name"]
    path = folder / PIPELINE
    with disk(path):
        write(path, as_yaml(tasks))
    given = [word for each in secrets for word in ("--secret", each)]
    call(["sky", "jobs", "launch", "-y", "-d", "-n", name, *given, str(path)], help=_HELP)
    for each in (folder, *others):
        save(each, Launch("skypilot", {"name": name}))
    return name


def cancel(queued: Mapping[str, Any]) -> None:
    """Cancels the managed job of a launch once the output of its nodes is in the bucket.

    Raises: RunError.
    """
    require("sky", "cancel from a machine that has it")
    call(["sky", "jobs", "cancel", "-y", "--graceful", "-n", queued["name"]], help=_HELP)


def at_work(queued: Mapping[str, Any]) -> bool:
    """Whether the managed job of a launch is queued or running.

    Raises: RunError.
    """
    require("sky", "ask from a machine that has it")
    text = call(["sky", "jobs", "queue", "--skip-finished", "-o", "json"], help=_HELP)
    start = text.find("[")
    try:
        jobs = json.loads(text[start:]) if start >= 0 else []
    except ValueError:
        raise RunError("`sky jobs queue -o json` does not print JSON", "update SkyPilot") from None
    return any(job.get("job_name") == queued["name"] for job in jobs)
