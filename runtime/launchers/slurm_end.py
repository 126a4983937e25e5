"""The end of an attempt at a phase: what becomes of its Slurm job.

    python -m etude.runtime.launchers.slurm_end RUN_FOLDER PHASE ATTEMPTS CODE

A batch script asks this when its ranks have ended.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from ...compiler.as_written import counted
from ...compiler.plan.phases import phases
from ...compiler.plan.plan_schema import read_plan
from ..errors import RunError
from . import record
from .node import AGAIN, DECIDED
from .record import Launch
from .slurm_script import SCRIPTS

ATTEMPTS = "attempts.json"


def main(folder: Path, number: int, most: int, code: int) -> int:
    """Decides; returns 0 (done), 75 (queue it again), or 1, 2 or 3: a person is needed.

    Args:
        number: of the phase, from 1.
        most: attempts in a row that may get no further.
        code: with which the ranks have ended.
    """
    if code == 0:
        return 0
    plan = read_plan(folder / "plan.json")
    name = phases(plan)[number - 1].name
    if code in DECIDED:
        _stop(folder, f"{name} ended with {code}; {folder}/logs may say why", "")
        return code
    count = _in_vain(folder, name)
    if count >= most:
        _stop(
            folder,
            f"{name} has been started {counted(count, 'times')} in a row without getting any "
            f"further, the last time it ended with {code}",
            f"{folder}/logs/{name}.rank-0.log may say why; correct it and launch again",
        )
        return 1
    print(f"etude: {name} ended with {code}; its job is queued again", flush=True)
    return AGAIN


def _in_vain(folder: Path, name: str) -> int:
    """How many attempts in a row, this one included, got no further; counted on the disk."""
    path = folder / SCRIPTS / ATTEMPTS
    state = progress(folder)
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        before = {}
    same = before.get("phase") == name and before.get("state") == state
    count = int(before.get("count", 0)) + 1 if same else 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"phase": name, "state": state, "count": count}))
    return count


def progress(folder: Path) -> list[str]:
    """What is there: results, and the checkpoints of jobs at work. It changes as a run gets on."""
    found = [path.name for path in (folder / "artifacts").glob("*")]
    found += [f"{path.parts[-3]}/{path.name}" for path in (folder / "work").glob("*/checkpoints/*")]
    return sorted(found)


def _stop(folder: Path, message: str, help: str) -> None:
    """Cancels what waits for this job, and leaves word for `etude status`."""
    print(f"etude: {message}" + (f"\n  = help: {help}" if help else ""), flush=True)
    with contextlib.suppress(RunError, OSError):
        launch = record.load(folder)
        if launch is None:
            return
        stopped = {"message": message, "help": help}
        record.save(folder, Launch(launch.engine, {**launch.queued, "stopped": stopped}, launch.at))
        own = os.environ.get("SLURM_JOB_ID")
        after = [job for job in launch.queued.get("jobs", []) if own and int(job) > int(own)]
        if after:
            subprocess.run(["scancel", *after], capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
