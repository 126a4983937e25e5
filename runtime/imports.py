"""Imports torch and torchtitan beside other work: both take seconds, and data are prepared without
them."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from ..compiler.plan.plan import Plan, TrainJob

_threads: list[threading.Thread] = []


def begin(plan: Plan, done: Collection[str]) -> None:
    """Begins to import what the plan's training needs, if there is training left.

    What goes wrong is left to the job that imports the same.

    Args:
        done: jobs whose results are there.
    """
    left = [job for job in plan.jobs if job.id not in done and not plan.aside(job)]
    train = next((job for job in left if isinstance(job, TrainJob)), None)
    if _threads or train is None:
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
    # On import, torchao does what torch 2.14 advises against: users cannot change it, and would
    # read it behind the error that has ended their run.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    with uncollected():
        from .engine.device import prepare
        from .engine.without_datasets import without_datasets

        prepare(device)  # before torchtitan, which chooses its device when it is imported
        with without_datasets():
            import_module(".engine.config", __package__)


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports without collecting garbage, and spares later collections what has been imported.

    torch and torchtitan make a million objects that stay. Collections look at them again and again
    while there are more and more: a fifth of the time that the imports take, and half of what
    parsing Python's sources takes beside them. What another thread leaves behind in these seconds
    in cycles stays in memory.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def wait() -> None:
    """Waits until nothing is being imported: modules of a package that import each other must not
    be imported by two threads at once."""
    for thread in _threads:
        thread.join()


def leave(code: int) -> None:
    """Ends this process at once if something is still being imported; returns if nothing is.

    A usual exit would wait for the thread, and keep users waiting for seconds after the message
    that ended their run.
    """
    if any(thread.is_alive() for thread in _threads):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
