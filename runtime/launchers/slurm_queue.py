"""Slurm jobs that a launch has queued: their states, and cancelling them."""

import time
from collections.abc import Mapping
from typing import Any

from .programs import Refused, call, require

PROGRAM: str = "squeue"
SAVING_SECONDS = 900.0
"""Seconds that a cancelled job has to save its state."""
POLL_SECONDS = 2.0
_OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
_HELP = "`scontrol ping` says whether Slurm's controller is up"


def states(queued: Mapping[str, Any]) -> dict[str, str]:
    """Job → state, of a launch's jobs that are queued or running.

    Raises: RunError: Slurm does not answer.
    """
    require("squeue", "ask from a login node of Slurm")
    jobs = set(queued.get("jobs", ()))
    text = call(["squeue", "--me", "--all", "--noheader", "--format=%F %T"], help=_HELP)
    found: dict[str, str] = {}
    for line in text.splitlines():
        job, _, state = line.strip().partition(" ")
        # Tasks of an array are lines of one job, which is running if one of them is.
        if job in jobs and state not in _OVER and found.get(job) != "RUNNING":
            found[job] = state
    return found


def at_work(queued: Mapping[str, Any]) -> bool:
    """Whether a job of a launch is queued or running.

    Raises: RunError: Slurm does not answer.
    """
    return bool(states(queued))


def cancel(queued: Mapping[str, Any]) -> None:
    """Cancels the jobs of a launch: waiting ones at once, the running one after it has saved.

    Raises: RunError: Slurm refuses.
    """
    there = states(queued)
    running = [job for job, state in there.items() if state == "RUNNING"]
    waiting = [job for job in there if job not in running]
    if waiting:
        call(["scancel", *waiting], help=_HELP)
    for job in running:
        # Its script tells the ranks to save, and would then requeue it.
        _let(["scontrol", "update", f"JobId={job}", "Requeue=0"])
        _let(["scancel", "--batch", "--signal=USR1", job])
    end = time.monotonic() + SAVING_SECONDS
    while running and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        now = states(queued)
        running = [job for job in running if job in now]
    if running:
        call(["scancel", *running], help=_HELP)


def _let(command: list[str]) -> None:
    """Runs a command for a job that may have ended meanwhile."""
    try:
        call(command)
    except Refused:
        return
