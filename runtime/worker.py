"""One rank of a gang: launchers start `-m etude.runtime.worker RUN_FOLDER ROOT DEVICE`."""

import logging
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..compiler.plan.part import beside
from ..compiler.plan.plan import Plan, TrainJob
from ..compiler.plan.plan_schema import read_plan
from ..compiler.values import Phase, Resources
from . import imports
from .errors import Interrupted, RunError
from .gathering import bring_log, leading, send_unsent, sending_log
from .launchers import messages
from .launchers.allocation import here
from .launchers.launcher import Outcome
from .part import phase_of, up_to
from .preflight.nodes import needed, require_nodes
from .ranks import Ranks
from .run_folder.lease import INHERITED
from .run_folder.store import LOGS, RANK_LOG, Store
from .run_folder.variant_folders import folder_at
from .scheduler import Scheduler, follow
from .stopping import listening

PLAN = "plan.json"


def main(address: str, root: Path, device: str) -> int:
    """Walks the plan in the run folder together with the other ranks; returns the exit code.

    Args:
        address: the run folder: a path, or a URL of a store.
        root: the spec's folder, which relative data paths start from.
        device: "cpu", or this rank's GPU.
    """
    # One write, since all ranks share a pipe and Python's -u writes each piece at once.
    sys.stdout.write(messages.line(messages.joined()) + "\n")
    sys.stdout.flush()
    try:
        place = here()
    except RunError as problem:
        return _refused(problem)
    if place is None:
        return _refused(
            RunError(
                "the environment does not say which rank of a gang this process is",
                "start it with torchrun or srun, or use `etude run`",
            )
        )
    try:
        store = Store(folder_at(address))
    except RunError as problem:
        return _refused(problem)
    bring_log(store, place.rank)
    keep_log(store, place.rank)

    def tell(problem: RunError) -> None:
        store.tell(messages.failed(problem))

    try:
        ranks = Ranks(place, tell)
    except RunError as problem:
        if place.rank == 0:
            tell(problem)
        return _refused(problem)
    try:
        if place.rank == 0:
            return _lead(store, root, device, ranks)
        plan, _ = _ready(store, ranks)
        with sending_log(store, ranks):
            send_unsent(store, ranks)
            walk(plan, store, root, device, ranks, None)
    except Exception as problem:
        ranks.fail(problem)
    return 0


def _lead(store: Store, root: Path, device: str, ranks: Ranks) -> int:
    """Rank 0's part; returns the exit code.

    Raises: RunError, Stopped.
    """
    if INHERITED not in os.environ:
        store.pull()
        store.fetch_small(PLAN)  # a launch may have replaced it
    plan, phase = _ready(store, ranks)
    store.create()
    with store.lease(nodes=True, beside=beside(plan)), leading(store, ranks):
        send_unsent(store, ranks)
        needs = walk(plan, store, root, device, ranks, store.tell)
        if phase and needs:  # the others have left
            store.tell(messages.failed(problem := _unfinished(phase, needs)))
            return problem.exit_code
        store.tell(messages.ended(Outcome(needs)))
    return 0


def _ready(store: Store, ranks: Ranks) -> tuple[Plan, Phase | None]:
    """The gang's part of the plan and its phase, once all nodes are known to be ready for it.

    Raises: RunError: a node is not ready.
    """
    needs = None
    if ranks.rank == 0:
        plan = read_plan(store.folder / PLAN)
        phase = phase_of(plan, os.environ)
        needs = needed(plan, phase.jobs if phase else ())
        ranks.share("plan", zlib.compress(plan.to_json().encode()))
    else:
        plan = Plan.model_validate_json(zlib.decompress(ranks.share("plan", None)))
        phase = phase_of(plan, os.environ)
    require_nodes(store.folder, ranks.rank, needs, ranks.share, ranks.collect)
    return (up_to(plan, phase) if phase else plan), phase


def _unfinished(phase: Phase, needs: Resources) -> Interrupted:
    """The error of a gang whose phase is not done because the gang has the wrong size."""
    return Interrupted(
        f"the phase {phase.name} is not done: its next job needs {needs.world_size} ranks on "
        f"{needs.device}",
        "launch the run again, from the phase that was skipped",
    )


def walk(
    plan: Plan,
    store: Store,
    root: Path,
    device: str,
    ranks: Ranks,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> Resources | None:
    """Walks a plan as one rank of a gang; arguments as for `main`.

    Args:
        on_event: called with each event, on rank 0.

    Returns: what the next job needs; None at the end of the plan.
    Raises: RunError, Stopped.
    """
    with imports.uncollected():
        from .engine.device import prepare

        prepare(device)
    if ranks.world_size > 1:
        ranks.together(device)
    if ranks.rank != 0:
        if any(isinstance(job, TrainJob) for job in plan.jobs):
            # While rank 0 prepares data; the first job would wait for it.
            imports.engine(device)
        return follow(plan, store, root, ranks)
    assert on_event
    return Scheduler(plan, store, root, gang=ranks, on_event=on_event).run()


def keep_log(store: Store, rank: int) -> None:
    """Appends the output of this process and its libraries to the rank's log, unless a launcher has
    already redirected it to one."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    path = Path(os.path.realpath("/proc/self/fd/1"))
    if path.parent != (store.folder / LOGS).resolve():
        path = store.log_of(rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        for descriptor in (1, 2):
            os.dup2(file, descriptor)
        os.close(file)
    os.environ[RANK_LOG] = str(path)
    logging.basicConfig(level=logging.INFO)
    host, started = os.uname().nodename, time.strftime("%Y-%m-%d %H:%M:%S %z")
    print(f"==== rank {rank} on {host}, process {os.getpid()}, {started}", flush=True)


def _refused(problem: RunError) -> int:
    """Prints to standard error why the rank did not start; the run folder may be wrong."""
    print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
    return problem.exit_code


if __name__ == "__main__":
    with listening(last=True):
        sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
