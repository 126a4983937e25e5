"""The end of an attempt at a phase: decides whether its Slurm job is requeued.

    python -m etude.runtime.launchers.slurm_end RUN_FOLDER PHASE ATTEMPTS BEFORE CODE

A batch script calls this when its ranks have ended. srun returns the highest exit code, which may
be that of a rank that it killed because another one failed. So rank 0's report counts first.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...compiler.as_written import counted
from ...compiler.plan.phases import phases
from ...compiler.plan.plan_schema import read_plan
from ..disk import write
from ..errors import RunError
from ..run_folder import json_lines
from ..run_folder.store import EVENTS, LOGS, Store
from ..run_folder.variant_folders import folder_at
from . import messages, parts, record
from .node import AGAIN, DECIDED
from .slurm_script import SCRIPTS

ATTEMPTS_FILE = f"{SCRIPTS}/attempts.json"
"""In the run folder, how often the last phase was started in vain."""


def main(address: str, number: int, most: int, before: int, code: int) -> int:
    """Decides; returns 0 (done), 75 (requeue), or 1, 2 or 3: a person is needed.

    Args:
        address: the run folder: a path, or a URL of a store. Then rank 0 has worked in this node's
            local folder of it.
        number: the phase's number, from 1.
        most: how many attempts in a row may make no progress.
        before: size of the run folder's events, in bytes, when the attempt began; of a run in a
            store the time, in seconds since 1970.
        code: srun's exit code.
    """
    if code == 0:
        return 0
    folder = folder_at(address)
    if number == parts.NUMBER:
        return _of_part(most, code)
    store = Store(folder)
    with contextlib.suppress(RunError):  # it says what it said when it was asked last
        store.fetch_small("plan.json", record.LAUNCH, ATTEMPTS_FILE)
    if not (folder / "plan.json").is_file():  # the store did not answer at all
        return AGAIN if code not in DECIDED else code
    name = phases(read_plan(folder / "plan.json"))[number - 1].name
    told = _told(folder, before)
    message, help, decided = f"{name} ended with {code}", f"{store.name}/{LOGS} may say why", code
    if told:
        message, help, decided = told["error"], told["help"], told["exit_code"]
    if decided in DECIDED:
        _stop(folder, RunError(message, help), told=told is not None)
        return decided
    count = _in_vain(folder, name)
    if count >= most:
        times = f"{name} was started {counted(count, 'times')} in a row without progress"
        _stop(folder, RunError(f"{times}; the last time, {message}", help), told=False)
        return 1
    print(f"etude: {message}; the job of {name} is requeued", flush=True)
    return AGAIN


def _of_part(most: int, code: int) -> int:
    """Decides for a part of preparing, whose own output says why it ended: it is requeued, unless
    it failed for good or has crashed too often."""
    starts = int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1
    if code in DECIDED or (code != AGAIN and starts >= most):
        return code if code in DECIDED else 1
    print(f"etude: a part of preparing ended with {code}; it is queued again", flush=True)
    return AGAIN


def _told(folder: Path, before: int) -> Mapping[str, Any] | None:
    """Rank 0's last report of the attempt; None if it ended without one."""
    stored = Store(folder).remote is not None
    events = json_lines.Follower(folder / EVENTS, 0 if stored else before).new()
    said = [
        event
        for event in events
        if event.get("event") == messages.OUTCOME and (not stored or event["time"] >= before)
    ]
    return said[-1] if said and "error" in said[-1] else None


def _in_vain(folder: Path, name: str) -> int:
    """How many attempts in a row, including this one, made no progress; counted on disk."""
    path = folder / ATTEMPTS_FILE
    state = progress(folder)
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        before = {}
    same = before.get("phase") == name and before.get("state") == state
    count = int(before.get("count", 0)) + 1 if same else 1
    path.parent.mkdir(exist_ok=True)
    write(path, json.dumps({"phase": name, "state": state, "count": count}))
    if remote := Store(folder).remote:
        with contextlib.suppress(RunError):
            remote.record(path)
    return count


def progress(folder: Path) -> list[str]:
    """Results and checkpoints of running jobs that exist; this changes as a run makes progress."""
    if remote := Store(folder).remote:
        with contextlib.suppress(RunError):
            remote.look()
        return remote.marks()
    found = [path.name for path in (folder / "artifacts").glob("*")]
    found += [f"{path.parts[-3]}/{path.name}" for path in (folder / "work").glob("*/checkpoints/*")]
    return sorted(found)


def _stop(folder: Path, problem: RunError, *, told: bool) -> None:
    """Reports to `etude status`, unless rank 0 did, and cancels the jobs that wait for this one."""
    print(f"etude: {problem.message}\n  = help: {problem.help}", flush=True)
    with contextlib.suppress(RunError, OSError, subprocess.SubprocessError):
        if not told:
            store = Store(folder)
            store.tell(messages.failed(problem))
            if store.remote:
                store.remote.send(metrics=False, rest=True)
        launch = record.load(folder)
        own = os.environ.get("SLURM_JOB_ID")
        jobs = list(launch.queued.get("jobs", ())) if launch else []
        if own in jobs and (after := jobs[jobs.index(own) + 1 :]):
            subprocess.run(["scancel", *after], capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:6])))
