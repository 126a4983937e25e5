"""The parts of preparing that engines run side by side, before the first phase joins them.

    python -m etude.runtime.launchers.parts RUN_FOLDER ROOT PARTS

is one of PARTS processes. The engine says which: a task of a Slurm job array, a pod of an indexed
Job of Kubernetes, a node of SkyPilot.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ...compiler.plan.plan import DatasetJob, Plan
from ...compiler.plan.plan_schema import read_plan
from ...compiler.values import Phase
from ..errors import RunError
from ..run_folder.store import LOGS, Store
from ..run_folder.variant_folders import folder_at

MODULE = "etude.runtime.launchers.parts"
NUMBER = 0
"""The phase's number: it comes before all phases of the plan."""
NUMBERS = {"SLURM_ARRAY_TASK_ID": 1, "JOB_COMPLETION_INDEX": 0, "SKYPILOT_NODE_RANK": 0}
"""The variables that number the parts → the first part's number."""


def parts_phase(plan: Plan, left: Sequence[Phase]) -> Phase | None:
    """The phase that is done in parts: it tokenizes the documents that the first remaining phase
    would otherwise tokenize alone. None if it has no documents."""
    first = set(left[0].jobs) if left else set()
    jobs = [
        job.id
        for job in plan.jobs
        if job.id in first and isinstance(job, DatasetJob) and job.form == "documents"
    ]
    if not jobs:
        return None
    return Phase(
        number=NUMBER,
        kind="cpu",
        nodes=1,
        ranks=1,
        device="cpu",
        devices=0,
        jobs=jobs,
        conditional=False,
        seconds=None,
    )


def number(environ: Mapping[str, str], parts: int) -> int:
    """The number of the part that this process does, from 1.

    Raises: RunError: no variable is set, or its number is out of range.
    """
    said = {name: value for name in NUMBERS if (value := environ.get(name))}
    for name, value in said.items():
        found = int(value) - NUMBERS[name] + 1 if value.isdecimal() else 0
        if 1 <= found <= parts:
            return found
        raise RunError(f"{name}={value} names none of {parts} parts", "launch the run again")
    raise RunError(
        f"nothing says which of {parts} parts this process does: none of {', '.join(NUMBERS)} is "
        "set",
        "by hand: etude prepare SPEC --part I of N",
    )


def main(address: str, root: Path, parts: int) -> int:
    """Tokenizes a part; returns 0, 1, 3 or 75.

    Args:
        address: the run folder: a path, or a URL of a store.
    """
    from ..preparation.units import Part
    from ..prepare_part import prepare_part
    from ..stopping import listening

    try:
        with listening(last=__name__ == "__main__"):
            part = Part(number(os.environ, parts), parts)
            folder = folder_at(address)
            store = Store(folder)
            store.fetch_small("plan.json")
            with _sending_output(store):
                count = prepare_part(read_plan(folder / "plan.json"), folder, root, _show, part)
    except RunError as problem:
        print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
        return problem.exit_code
    print(f"part {part.number} of {part.of} is tokenized: {count} units")
    return 0


def _sending_output(store: Store) -> AbstractContextManager[None]:
    """Sends the log that this process prints to, if it has one and the run folder is in a store."""
    path = Path(os.path.realpath("/proc/self/fd/1"))
    if store.remote is None or path.parent != (store.folder / LOGS).resolve():
        return nullcontext()
    return store.remote.following_log(path)


def _show(event: dict[str, Any]) -> None:
    if "message" in event:
        print(f"{event['event']}: {event['message']}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
