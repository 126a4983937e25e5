"""The environment of a train job in its process: rank, log, garbage collection."""

import atexit
import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from ..alone import be_alone
from ..errors import RunError
from ..run_folder.store import LOGS, Store
from ..world import TRACES, free_port


def join(world_size: int, device: str) -> int:
    """Makes this process one of `world_size` ranks and returns its rank.

    Under torchrun the environment gives the rank; a process on its own is rank 0 of 1.

    Raises:
        RunError: there are fewer or more ranks than the job needs, or not a GPU for each.
    """
    if "RANK" not in os.environ:
        be_alone(free_port())
    ranks = int(os.environ["WORLD_SIZE"])
    if ranks != world_size:
        raise RunError(
            f"the job needs {world_size} ranks, but there are {ranks}",
            f"start it with torchrun on {world_size} devices, or plan for {ranks}",
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # A launcher may also show every rank only one GPU.
    if device != "cpu" and "CUDA_VISIBLE_DEVICES" not in os.environ:
        gpus = torch.accelerator.device_count()
        if gpus < here:
            raise RunError(
                f"the job needs {here} GPUs on this machine, but it has {gpus}",
                "run it on machines with more, or plan for these",
            )
    return int(os.environ["RANK"])


@atexit.register
def leave() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


T = TypeVar("T")


def rank_log(root: Path, rank: int) -> Path:
    """The log of a rank, which the run keeps; creates its folder.

    Args:
        root: of the run.
    """
    path = Store(root).log_of(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def traces(root: Path) -> str:
    """The folder where the flight recorder keeps the last collectives of a stalled gang."""
    return str((root / LOGS / TRACES).resolve())


def as_rank_0_sees(look: Callable[[], T]) -> T:
    """What rank 0 sees in the run folder; all ranks call this together, and only rank 0 looks."""
    found = [look() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)
    return cast(T, found[0])


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Sends log messages and Python warnings to a file; torchtitan logs to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    file = _LogFile(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.handlers[:] = [file]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        file.close()


@contextmanager
def tracing(root: Path, rank: int, *, wanted: bool) -> Iterator[None]:
    """Writes torchtitan's structured log, with the time of each part of each step, to the run
    folder's logs if it is wanted; without it, torchtitan's calls cost next to nothing."""
    log = logging.getLogger("torchtitan.structured_logger")
    log.disabled = not wanted
    handler: logging.Handler | None = None
    if wanted:
        # Only once the device is prepared.
        from torchtitan.observability.structured_logger.jsonl_handler import TraceJsonlHandler

        handler = TraceJsonlHandler(rank=rank, source="training", output_dir=str(root / LOGS))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.disabled = False
        if handler:
            log.removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    def close(self) -> None:
        """Closes the file, and drops what the disk cannot take."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Drops a line that the disk cannot take; important output is written elsewhere."""


@cache
def freeze_imports() -> None:
    """Spares collections of garbage what is imported by now and stays: a million objects, which
    each of several collections between two jobs would look at again."""
    gc.freeze()


@contextmanager
def own_garbage() -> Iterator[None]:
    """Undoes torchtitan's changes to the garbage collector, and collects the trainer."""
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
