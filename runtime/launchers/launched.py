"""What has become of a launch, and its end: whichever engine was given the run."""

import shutil
from typing import Any, Protocol

from ..errors import RunError
from . import kubectl, sky, slurm_queue
from .record import Launch


class Queue(Protocol):
    """What a module of an engine has."""

    PROGRAM: str
    """The command that asks the engine."""

    def at_work(self, queued: Any) -> bool: ...

    def cancel(self, queued: Any) -> None: ...


QUEUES: dict[str, Queue] = {"slurm": slurm_queue, "kubernetes": kubectl, "skypilot": sky}


def queue_of(launch: Launch) -> Queue:
    """Raises: RunError: another version of etude knows the engine."""
    if launch.engine not in QUEUES:
        raise RunError(
            f"the run was launched on {launch.engine}, which this version of etude does not know",
            "use the version that launched it",
        )
    return QUEUES[launch.engine]


def at_work(launch: Launch | None) -> bool | None:
    """Whether the engine still has what was launched; None where it cannot be asked from here."""
    if launch is None or launch.engine not in QUEUES:
        return None
    queue = QUEUES[launch.engine]
    if shutil.which(queue.PROGRAM) is None:
        return None
    try:
        return queue.at_work(launch.queued)
    except RunError:
        return None
