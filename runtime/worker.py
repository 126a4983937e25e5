"""One rank of a gang: launchers start `-m etude.runtime.worker RUN_FOLDER ROOT DEVICE`."""

import logging
import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..compiler.plan.plan import Plan
from .errors import RunError
from .launchers import messages
from .launchers.launcher import Outcome
from .run_folder.store import Store
from .scheduler import Scheduler
from .stopping import listening


def main(folder: Path, root: Path, device: str) -> int:
    """Walks the plan in the run folder with the other ranks; returns the exit code.

    Args:
        root: the folder of the spec, where relative paths of data start.
        device: "cpu", or the GPU that this rank has.
    """
    _send(messages.joined())
    import torch.distributed as dist

    from .engine.device import prepare

    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    # The launcher keeps what is printed here in the run's log.
    logging.basicConfig(level=logging.INFO)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        prepare(device)
        dist.init_process_group("gloo" if device == "cpu" else "nccl")
        # Ranks wait for rank 0 to evaluate and to export, which may take longer than any step.
        patience = dist.new_group(backend="gloo", timeout=timedelta(days=7))
        scheduler = Scheduler(
            plan,
            Store(folder),
            root,
            world_size=world_size,
            rank=rank,
            barrier=partial(_wait, patience),
            on_event=_send,
        )
        needs = scheduler.run()
        if rank == 0:
            _send(messages.ended(Outcome(needs)))
    except RunError as problem:
        _send(messages.failed(problem))
        # The other ranks may wait for this one: torchrun ends them when it exits.
        os._exit(problem.exit_code)
    return 0


def _wait(group: Any) -> None:
    import torch.distributed as dist

    dist.barrier(group)


def _send(event: dict[str, Any]) -> None:
    print(messages.line(event), flush=True)


if __name__ == "__main__":
    with listening():
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
