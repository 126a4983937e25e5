"""Imports torch and torchtitan while data are prepared: both take seconds, and neither needs the
other."""

import threading
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module

from ..compiler.plan.plan import Plan, TrainJob
from .jobs import WORK

_threads: list[threading.Thread] = []


def begin(plan: Plan, done: Collection[str]) -> None:
    """Begins to import what the plan's training needs, if data have to be prepared before.

    What goes wrong is left to the job that imports the same.

    Args:
        done: jobs whose results are there.
    """
    left = [job for job in plan.jobs if job.id not in done and not plan.aside(job)]
    train = next((job for job in left if isinstance(job, TrainJob)), None)
    if _threads or train is None or not any(WORK[type(job)].prepares for job in left):
        return
    device = train.resources.device

    def load() -> None:
        with suppress(Exception):
            engine(device)

    # Not a daemon: an exit in the middle of an import could crash.
    thread = threading.Thread(target=load, name="imports")
    thread.start()
    _threads.append(thread)


def engine(device: str) -> None:
    """Imports what trains on a device.

    Raises: RunError: this process already trains on another one.
    """
    from .engine.device import prepare

    prepare(device)  # before torchtitan, which chooses its device when it is imported
    import_module(".engine.config", __package__)


def wait() -> None:
    """Waits until nothing is being imported: modules of a package that import each other must not
    be imported by two threads at once."""
    for thread in _threads:
        thread.join()
