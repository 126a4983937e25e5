"""The state of a launch, and its cancellation, on any engine."""

import shutil
from typing import Any, Protocol

from ..errors import RunError
from . import kubectl, sky, slurm_queue
from .record import Launch


class Queue(Protocol):
    """What the module of an engine provides."""

    PROGRAM: str
    """The command that queries the engine."""

    def at_work(self, queued: Any) -> bool: ...

    def cancel(self, queued: Any) -> None: ...


QUEUES: dict[str, Queue] = {"slurm": slurm_queue, "kubernetes": kubectl, "skypilot": sky}


def queue_of(launch: Launch) -> Queue:
    """Raises: RunError: only another version of etude knows the engine."""
    if launch.engine not in QUEUES:
        raise RunError(
            f"the run was launched on {launch.engine}, which this version of etude does not know",
            "use the version that launched it",
        )
    return QUEUES[launch.engine]


def at_work(launch: Launch | None) -> bool | None:
    """Whether the engine still has the launch; None if it cannot be reached from here."""
    if launch is None or launch.engine not in QUEUES:
        return None
    queue = QUEUES[launch.engine]
    if shutil.which(queue.PROGRAM) is None:
        return None
    try:
        return queue.at_work(launch.queued)
    except RunError:
        return None
