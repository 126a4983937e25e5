"""Work on a data set's files by any number of processes and hosts, in any order.

A unit is the result for a stretch of a data set's files, or for several small files:
`units/NUMBER` in the work folder of the data set's job, with `unit.json` and the files that its
task writes. It is made under another name and renamed, so that it exists complete or not at all. If
the run folder is in a store, the units of parts are there, too.
Two processes that make the same unit write the same bytes. The units do not depend on who makes
them, and neither does the result of joining them in the order of the files.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import stopping
from ..disk import move, write
from ..errors import DataError
from ..processors import processors
from ..run_folder.recorder import OnEvent
from .stored_units import UNIT, StoredUnits

UNITS = "units"
_LOOK = 0.5
"""Seconds between checks whether the run should stop."""
_MUCH = 2**25
"""Bytes of files above which more processes are started."""
_ALONE = "processes that tokenize have ended early; this one continues alone"

Stop = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """Part `number` of `of` parts, counted from 1."""

    number: int = 1
    of: int = 1

    def units(self, task: "Task") -> list[int]:
        """The numbers of the part's units."""
        return list(range(self.number - 1, len(task), self.of))


class Task(Protocol):
    """Makes the units of a data set; it is sent to every process."""

    def __len__(self) -> int:
        """How many units there are."""
        ...

    def identity(self, number: int) -> Any:
        """What a unit reads of the data set's files, as JSON."""
        ...

    def bytes(self, number: int) -> int | None:
        """How many bytes a unit reads; None if unknown."""
        ...

    def make(self, number: int, folder: Path, stop: Stop) -> dict[str, Any] | None:
        """Writes a unit's files and returns what `unit.json` holds besides its identity: at least
        `documents` and `tokens`; None if it was stopped.

        Raises:
            DataError: a file cannot be read or used.
            OSError: writing failed.
        """
        ...

    def sizes(self, unit: Mapping[str, Any]) -> dict[str, int]:
        """The files of a unit with their sizes in bytes."""
        ...


def make(
    task: Task, job: str, folder: Path, on_event: OnEvent, *, part: Part | None = None
) -> None:
    """Makes the missing units of a part, on all cores.

    Args:
        job: for events.
        folder: the job's work folder.

    Raises:
        DataError: a file cannot be read, or has more bad lines than the data set allows.
        Interrupted: the run was asked to stop, or the store cannot be reached; complete units are
            kept.
        OSError: writing failed.
    """
    folder = folder / UNITS
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (part or Part()).units(task)
    stored = StoredUnits.of(folder)
    counts = np.zeros(2, np.int64)

    def made(number: int, unit: Mapping[str, Any]) -> None:
        if stored and part:
            stored.send(number, task.sizes(unit))
        counts[:] += unit["documents"], unit["tokens"]
        event = {"event": "tokenized", "job": job}
        on_event(event | {"documents": int(counts[0]), "tokens": int(counts[1])})

    left = []
    for number, unit in _done(task, folder, wanted, stored, keep=part is None):
        if unit is None:
            left.append(number)
        else:
            made(number, unit)
    processes = min(processors(), len(left))
    if processes > 1 and _much(task, left):
        try:
            for number, unit in _in_processes(task, folder, left, processes):
                made(number, unit)
        except BrokenProcessPool:
            # A process was killed, perhaps for its memory, or this program cannot start any.
            on_event({"event": "note", "message": _ALONE})
    left = [number for number in left if there(task, folder, number) is None]
    for number, unit in _here(task, folder, left):
        made(number, unit)


def _done(
    task: Task, folder: Path, numbers: Sequence[int], stored: StoredUnits | None, *, keep: bool
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The numbers of units with their `unit.json`; None for those that are yet to be made.

    Args:
        keep: whether units that are only in the store are fetched.
    """
    if stored:
        stored.take_descriptions(numbers)
    for number in numbers:
        unit = there(task, folder, number, stored)
        if stored and unit and keep:
            sums = {"tokens": unit["sha256"]} if "sha256" in unit else {}
            stored.take(number, task.sizes(unit), sums)
        yield number, unit


def _much(task: Task, numbers: Sequence[int]) -> bool:
    """Whether the units take longer than starting processes."""
    sizes = [task.bytes(number) for number in numbers]
    return None in sizes or sum(filter(None, sizes)) > _MUCH


def _here(task: Task, folder: Path, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in numbers:
        if unit := _make(task, folder, number, stopping.asked):
            yield number, unit
        stopping.check("what is left comes next")


def _in_processes(
    task: Task, folder: Path, numbers: Sequence[int], processes: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    # Spawned, because a fork would keep locks held by this process's threads locked.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(processes, context, _begin, (task, folder, stop)) as pool:
        of: dict[Future[dict[str, Any]], int] = {pool.submit(_work, n): n for n in numbers}
        pending = set(of)
        try:
            while pending:
                done, pending = wait(pending, _LOOK, FIRST_COMPLETED)
                stopping.check("what is left comes next")
                for each in done:
                    unit = each.result()
                    if "error" in unit:
                        raise DataError(*unit["error"])
                    yield of[each], unit
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _Process:
    """The state of a process in the pool."""

    task: Task
    folder: Path
    stop: Event


def _begin(task: Task, folder: Path, stop: Event) -> None:
    # Ctrl-C in a terminal reaches all processes; the main one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many processes as cores
    _Process.task, _Process.folder, _Process.stop = task, folder, stop
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    """Ends this process with the main one, even if that is killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _work(number: int) -> dict[str, Any]:
    try:
        return _make(_Process.task, _Process.folder, number, _Process.stop.is_set) or {}
    except DataError as problem:
        return {"error": (problem.message, problem.help)}


def _make(task: Task, folder: Path, number: int, stop: Stop) -> dict[str, Any] | None:
    """Makes a unit and returns its `unit.json`; None if it was stopped."""
    final = folder / f"{number:06}"
    partial = folder / f"{final.name}.{socket.gethostname()}.{os.getpid()}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    made = task.make(number, partial, stop)
    if made is None:
        return None
    unit = {"of": task.identity(number), **made}
    write(partial / UNIT, json.dumps(unit))
    shutil.rmtree(final, ignore_errors=True)
    try:
        move(partial, final)
    except OSError:
        if there(task, folder, number) is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)  # another host was faster
    return unit


def there(
    task: Task, folder: Path, number: int, stored: StoredUnits | None = None
) -> dict[str, Any] | None:
    """The `unit.json` of a unit; None if it is missing, or a crash has truncated its files.

    Args:
        stored: where its files may be, too.
    """
    unit = folder / f"{number:06}"

    def size(name: str) -> int | None:
        try:
            return (unit / name).stat().st_size
        except FileNotFoundError:
            return stored.size(unit.name, name) if stored else None

    try:
        found = json.loads((unit / UNIT).read_text(encoding="utf-8"))
        whole = all(size(name) == wanted for name, wanted in task.sizes(found).items())
        return found if whole and found["of"] == task.identity(number) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def each(task: Task, folder: Path, job: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and `unit.json`s of all units, in order; all must have been made.

    Raises: Interrupted: the run was asked to stop.
    """
    for number in range(len(task)):
        unit = there(task, folder / UNITS, number)
        assert unit is not None, f"unit {number} is missing"
        yield folder / UNITS / f"{number:06}", unit
        stopping.check(f"`{job}` is joined anew, from what is tokenized")
