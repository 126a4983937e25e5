"""The launcher for this machine: one rank is this process, several are processes of torchrun."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from ...compiler.as_written import counted
from ...compiler.plan.phases import ranks_of
from ...compiler.plan.plan import Plan
from ...compiler.values import Resources
from .. import imports, stopping
from ..errors import RunError
from ..held import let_go
from ..run_folder.json_lines import Follower, whole_size
from ..run_folder.lease import INHERITED
from ..run_folder.outcomes import outcomes
from ..run_folder.recorder import OnEvent
from ..run_folder.store import LOG, LOGS, Store
from ..scheduler import Scheduler
from .allocation import forget
from .launcher import Leg, Outcome
from .messages import JOINED, OUTCOME, event_in, outcome_of

GRACE = 30
"""Seconds that ranks have to end by themselves once one of them has ended."""
FOLLOW_SECONDS = 0.05
"""Seconds between two looks at a gang's events."""


class Local:
    """Runs legs on this machine."""

    def ready(self, plan: Plan) -> None:
        """Clears what another launcher or an earlier job left in this process.

        Raises: RunError: a job needs devices that this machine does not have.
        """
        forget()
        for job in plan.jobs:
            mesh = ranks_of(job)
            if mesh is not None and not plan.aside(job):
                _affordable(job.id, mesh)

    def start(self, leg: Leg, store: Store, on_event: OnEvent) -> Outcome:
        """Runs a leg, in this process if it needs one rank.

        Raises: RunError, Stopped.
        """
        if leg.ranks == 1:
            found = outcomes(leg.plan, store)
            imports.begin(leg.plan, {job for job in found if found[job].state == "finished"})

            def tell(event: dict[str, Any]) -> None:
                store.tell(event)
                on_event(event)

            try:
                return Outcome(Scheduler(leg.plan, store, leg.root, on_event=tell).run())
            finally:
                let_go()  # the next leg's processes take the same GPUs
        return _gang(leg, store, on_event)


def _affordable(job: str, mesh: Resources) -> None:
    """Raises: RunError: the job needs devices that this machine does not have."""
    ranks, device = mesh.world_size, mesh.device
    cpus = os.cpu_count() or 1
    if device == "cpu" and ranks > cpus:
        raise RunError(
            f"the job {job} needs {counted(ranks, 'processes')}, but this machine has "
            f"{counted(cpus, 'cores')}",
            elsewhere(f"run it with --ranks {cpus}, or on a larger machine"),
        )
    if device != "cpu" and ranks > 1:
        import torch

        gpus = torch.cuda.device_count()
        if ranks > gpus:
            raise RunError(
                f"the job {job} needs {ranks} × {device}, but this machine has {gpus} GPUs",
                elsewhere(
                    "train a small copy here with --miniature, or run it on such a cluster: "
                    "etude launch SPEC --on slurm, kubernetes or skypilot"
                ),
            )


def elsewhere(otherwise: str) -> str:
    """What to do if a plan needs more than this machine: on a login node of Slurm, launch it."""
    try:
        asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return otherwise
    if asked.returncode:  # installed, but without a cluster
        return otherwise
    return (
        "this is a login node of Slurm: etude launch SPEC --on slurm shows the batch jobs, and "
        "with --submit queues them"
    )


def _gang(leg: Leg, store: Store, on_event: OnEvent) -> Outcome:
    """Runs a leg in processes of torchrun, which end when this process does."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={leg.ranks}",
        # Signals that ask a run to stop go to the ranks, which save. torchrun would kill them after
        # a while, so it only gets SIGHUP, when its launcher ends.
        "--signals-to-handle=SIGHUP",
        f"--shutdown-timeout={GRACE}",
        "--module",
        *leg.worker(store),
    ]
    threads = str(max((os.cpu_count() or 1) // leg.ranks, 1))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    if store.held:
        environment[INHERITED] = store.held.token
    follower = Follower(store.events_path, whole_size(store.events_path))
    with (store.folder / LOG).open("a") as log, stopping.handing_on() as ask:
        gang = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            preexec_fn=_prepare,
        )
        if store.held:
            store.held.include(gang.pid)
        try:
            threading.Thread(target=_listen, args=(gang, log, ask), daemon=True).start()
            last = _follow(gang, follower, store, on_event)
        except BaseException:
            gang.send_signal(signal.SIGHUP)
            gang.wait()
            raise
    return outcome_of(last, store.folder / LOGS)


def _listen(gang: subprocess.Popen[str], log: TextIO, ask: Callable[[int], None]) -> None:
    """Registers the ranks that report their start, so that they can be asked to stop."""
    assert gang.stdout
    for line in gang.stdout:
        event = event_in(line)
        if event is None:
            with suppress(ValueError, OSError):
                log.write(line)
        elif event["event"] == JOINED:
            ask(event["process"])


def _follow(
    gang: subprocess.Popen[Any], follower: Follower, store: Store, on_event: OnEvent
) -> dict[str, Any] | None:
    """Passes on a gang's events until it has ended; returns its outcome event, if any.

    Raises: Interrupted: another run has taken the folder.
    """
    last = None
    ended = False
    while not ended:
        ended = gang.poll() is not None
        for event in follower.new():
            if event["event"] == OUTCOME:
                last = event
            else:
                on_event({name: value for name, value in event.items() if name != "time"})
        store.require_lease()
        if not ended:
            time.sleep(FOLLOW_SECONDS)
    return last


def _prepare() -> None:
    """Leaves requests to stop to the launcher, and has the kernel end the gang if the launcher is
    killed (Linux)."""
    for number in stopping.ASKING:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGHUP)
