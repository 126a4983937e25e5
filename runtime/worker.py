"""One rank of a gang: `torchrun … --module etude.runtime.worker RUN_FOLDER ROOT`."""

import json
import logging
import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..compiler.plan import ForwardJob, Plan, TrainJob
from .errors import RunError
from .gang import MARK
from .scheduler import Scheduler
from .store import Store


def main(folder: Path, root: Path) -> int:
    """Walks the plan in the run folder with the other ranks; returns the exit code."""
    import torch.distributed as dist

    from .engine.device import prepare

    plan = Plan.model_validate_json((folder / "plan.json").read_bytes())
    # The launcher keeps what is printed here in the run's log.
    logging.basicConfig(level=logging.INFO)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    devices = [
        j.resources.device
        for j in plan.jobs
        if isinstance(j, TrainJob | ForwardJob) and j.resources.world_size == world_size
    ]
    try:
        prepare(devices[0])
        dist.init_process_group("gloo" if devices[0] == "cpu" else "nccl")
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
            _send({"event": "outcome", "needs": needs})
    except RunError as problem:
        _send(
            {
                "event": "outcome",
                "error": problem.message,
                "help": problem.help,
                "exit_code": problem.exit_code,
            }
        )
        # The other ranks may wait for this one: torchrun ends them when it exits.
        os._exit(problem.exit_code)
    return 0


def _wait(group: Any) -> None:
    import torch.distributed as dist

    dist.barrier(group)


def _send(event: dict[str, Any]) -> None:
    print(MARK + json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
