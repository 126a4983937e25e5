"""Gangs: processes that stay up from job to job. One rank is this process; more are torchrun's."""

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..compiler.plan import ForwardJob, Plan, TrainJob
from ..compiler.schema import read_plan
from ..compiler.words import amount, counted
from .errors import RunError, Stopped
from .preflight import require_all
from .recorder import OnEvent
from .scheduler import Scheduler
from .store import Store, disk

LOG = "log"
"""The file of a run folder with what libraries and processes of a run print."""
MARK = "etude-event "
"""What a worker's lines for its launcher begin with; other output goes to the run's log."""

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By these a launcher tells a process which rank it is."""


def execute(
    plan: Plan, folder: Path, root: Path, on_event: OnEvent, *, prepare: bool = False
) -> None:
    """Runs a plan, or what is left of it, in a run folder.

    Args:
        root: the folder of the spec, where relative paths of data start.
        prepare: make the data that need no model, and train nothing.

    Raises: RunError, Stopped.
    """
    _require_claims(plan)
    if not prepare:
        _affordable(plan)
    gc.enable()
    # OpenMP's threads spin while they wait: beside other work on the machine that makes training
    # several times slower. It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Gangs are made here: what another launcher, or a job before, has left means nothing to them.
    for name in LAUNCHER:
        os.environ.pop(name, None)
    store = Store(folder)
    require_all(plan, store, root, on_event, prepare=prepare)
    store.create()
    with store.lock():
        path = folder / "plan.json"
        with disk(path):
            path.write_text(plan.to_json() + "\n")
        if prepare:
            Scheduler(read_plan(path), store, root, prepare=True, on_event=on_event).run()
        else:
            _walk(read_plan(path), store, root, on_event)


def _require_claims(plan: Plan) -> None:
    """Raises: RunError: the plan is not what its recipe claims to be."""
    failed = [claim for claim in plan.claims if not claim.holds and claim.contradicted is None]
    if failed:
        first = failed[0]
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise RunError(
            f"the recipe claims {amount(first.claimed)} for `{first.what}`, and this plan has "
            f"{amount(first.computed)}{more}; nothing was run",
            "`etude verify` lists the claims: correct the recipe, or the claim in `expect`, and "
            "run again",
        )


def _walk(plan: Plan, store: Store, root: Path, on_event: OnEvent) -> None:
    """Runs a plan to its end, in one gang after the other."""
    needed: int | None = 1
    while needed is not None:
        if needed == 1:
            needed = Scheduler(plan, store, root, on_event=on_event).run()
        else:
            needed = _torchrun(needed, store, root, on_event)


def _affordable(plan: Plan) -> None:
    """Raises: RunError: a job needs devices that this machine does not have."""
    for job in plan.jobs:
        if not isinstance(job, TrainJob | ForwardJob):
            continue
        ranks, device = job.resources.world_size, job.resources.device
        cpus = os.cpu_count() or 1
        if device == "cpu" and ranks > cpus:
            raise RunError(
                f"the job {job.id} needs {counted(ranks, 'processes')} and this machine has "
                f"{counted(cpus, 'cores')}",
                f"run it with --ranks {cpus}, or on a larger machine",
            )
        if device != "cpu" and ranks > 1:
            import torch

            gpus = torch.cuda.device_count()
            if ranks > gpus:
                raise RunError(
                    f"the job {job.id} needs {ranks} × {device} and this machine has {gpus} GPUs",
                    "run it on such a cluster",
                )


def _torchrun(ranks: int, store: Store, root: Path, on_event: OnEvent) -> int | None:
    """Runs jobs in a gang of `ranks` processes; returns the number that the next job needs."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        "--module",
        "etude.runtime.worker",
        str(store.folder.resolve()),
        str(root.resolve()),
    ]
    threads = str(max((os.cpu_count() or 1) // ranks, 1))
    log = store.folder / LOG
    outcome: dict[str, Any] = {}
    with log.open("a") as file:
        gang = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            preexec_fn=_end_with_parent,
        )
        assert gang.stdout
        try:
            for line in gang.stdout:
                if not line.startswith(MARK):
                    file.write(line)
                    continue
                event = json.loads(line.removeprefix(MARK))
                if event["event"] == "outcome":
                    outcome = event
                else:
                    on_event(event)
            gang.wait()
        except BaseException:
            gang.terminate()
            gang.wait()
            raise
    return _outcome(outcome, log)


def _outcome(outcome: Mapping[str, Any], log: Path) -> int | None:
    if not outcome:
        raise Stopped(
            f"the training processes ended without a word; the end of {log} may say why",
            "run again to continue from the last checkpoint",
        )
    if "error" in outcome:
        kind = Stopped if outcome["exit_code"] == Stopped.exit_code else RunError
        raise kind(outcome["error"], outcome["help"])
    return outcome["needs"]


def _end_with_parent() -> None:
    """Lets the kernel end the gang when its launcher is killed (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
