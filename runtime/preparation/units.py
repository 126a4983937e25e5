"""Documents tokenized file by file, by as many processes and hosts as there are, in any order.

A unit is what one file of a data set becomes: `units/NUMBER` in the work folder of the data set's
job, with its tokens, the lengths of its documents and `unit.json`. It is made under another name
and renamed, so that it is there whole or not at all; two that make the same one make the same
bytes. What the units are does not depend on who makes them, and neither do the shards that all of
them, joined in the order of the files, become.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...compiler.plan.plan import DatasetJob
from .. import stopping
from ..data import readers
from ..data.bad_lines import BadLines
from ..data.shards import SUMMARY, Batch, kinds, tokenized, write_splits
from ..data.sites import Sites
from ..data.streams import File, unreadable
from ..errors import DataError
from ..run_folder.recorder import OnEvent

UNITS = "units"
_UNIT = "unit.json"
_LOOK = 0.5
"""Seconds after which it is looked whether the run is to stop."""
_MUCH = 2**25
"""Bytes of files for which more processes are started."""
_ALONE = "processes that tokenize have ended early; this one goes on alone"
_JOINED = 2**24
"""Tokens that are joined at a time, about."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `of` parts, counted from 1."""

    number: int = 1
    of: int = 1

    def files(self, files: Sequence[File]) -> list[int]:
        """The numbers of the files that the part tokenizes."""
        return list(range(self.number - 1, len(files), self.of))


@dataclass(frozen=True)
class Task:
    """What a process needs to make units of a data set.

    Attributes:
        tokenizer: as JSON.
        folder: of the units.
    """

    files: Sequence[File]
    source: Mapping[str, Any]
    bad_lines: int
    root: Path
    tokenizer: str
    folder: Path


def files_of(source: Mapping[str, Any], root: Path) -> list[File]:
    """The files that are units; none where the source is read as a whole: where it is a sample, of
    the Hub or a single file, or has only some of its documents."""
    if source["kind"] != "files" or any(source.get(key) for key in ("documents", "skip", "deal")):
        return []
    files = readers.find(list(source["files"]), root)
    return files if len(files) > 1 else []


def make(
    job: DatasetJob,
    files: Sequence[File],
    tokenizer: Tokenizer,
    folder: Path,
    root: Path,
    on_event: OnEvent,
    *,
    part: Part | None = None,
) -> None:
    """Makes the units of a part that are not there yet, on all cores.

    Args:
        folder: the job's work folder.

    Raises:
        DataError: a file cannot be read, or has more bad lines than the data set may have.
        Interrupted: the run was asked to stop; whole units are kept.
        OSError: writing failed.
    """
    folder = folder / UNITS
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (part or Part()).files(files)
    left = [number for number in wanted if _there(folder, number) is None]
    task = Task(files, job.source, job.bad_lines, root, tokenizer.to_str(), folder)
    counts = np.zeros(2, np.int64)

    def made(unit: Mapping[str, Any]) -> None:
        counts[:] += unit["documents"], unit["tokens"]
        event = {"event": "tokenized", "job": job.id}
        on_event(event | {"documents": int(counts[0]), "tokens": int(counts[1])})

    for number in set(wanted) - set(left):
        if unit := _there(folder, number):
            made(unit)
    processes = min(_cores(), len(left))
    if processes > 1 and _much(files[number] for number in left):
        try:
            for unit in _in_processes(task, left, processes):
                made(unit)
        except BrokenProcessPool:
            # One was killed, perhaps for its memory, or none can be started from this program.
            on_event({"event": "note", "message": _ALONE})
    for unit in _here(task, [number for number in left if _there(folder, number) is None]):
        made(unit)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _much(files: Iterable[File]) -> bool:
    """Whether it takes longer to tokenize files than to start processes."""
    size = 0
    for file in files:
        if "://" in file.name:
            return True
        try:
            with file.open() as stream:
                size += stream.seek(0, os.SEEK_END)
        except OSError as problem:
            raise unreadable(file.name, problem) from None
        if size > _MUCH:
            return True
    return False


def _here(task: Task, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    tokenizer = Tokenizer.from_str(task.tokenizer)
    for number in numbers:
        if unit := _make(task, number, tokenizer, stopping.asked):
            yield unit
        stopping.check("the files that are left come next")


def _in_processes(task: Task, numbers: Sequence[int], processes: int) -> Iterator[dict[str, Any]]:
    # Started afresh, since threads of this process may hold locks that a fork would keep locked.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(processes, context, _begin, (task, stop)) as pool:
        pending: set[Future[dict[str, Any]]] = {pool.submit(_work, each) for each in numbers}
        try:
            while pending:
                done, pending = wait(pending, _LOOK, FIRST_COMPLETED)
                stopping.check("the files that are left come next")
                for each in done:
                    unit = each.result()
                    if "error" in unit:
                        raise DataError(*unit["error"])
                    yield unit
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class _Process:
    """What a process of the pool knows."""

    task: Task
    tokenizer: Tokenizer
    stop: Event


def _begin(task: Task, stop: Event) -> None:
    # Whoever has the terminal gets Ctrl-C too; the main process decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are as many as the cores
    _Process.task, _Process.stop = task, stop
    _Process.tokenizer = Tokenizer.from_str(task.tokenizer)
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    """Ends this process with the main one, even where that was killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _work(number: int) -> dict[str, Any]:
    try:
        return _make(_Process.task, number, _Process.tokenizer, _Process.stop.is_set) or {}
    except DataError as problem:
        return {"error": (problem.message, problem.help)}


def _make(task: Task, number: int, tokenizer: Tokenizer, stop: Any) -> dict[str, Any] | None:
    """Makes a unit and returns its `unit.json`; None where it was stopped."""
    bad_lines: list[str] = []
    sites: dict[str, int] = {}

    def count(found: Sites) -> None:
        sites.update(kept=found.kept, dropped=found.dropped)

    bad = BadLines(task.bad_lines, bad_lines.append)
    texts = readers.read_file(task.files[number], task.source, bad, root=task.root, on_sites=count)
    final = task.folder / f"{number:06}"
    partial = task.folder / f"{final.name}.{socket.gethostname()}.{os.getpid()}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    documents = tokens = 0
    with (partial / "tokens").open("wb") as one, (partial / "lengths").open("wb") as other:
        for batch in tokenized(texts, tokenizer):
            one.write(batch.tokens.data)
            other.write(batch.lengths.astype("<i8").data)
            documents, tokens = documents + len(batch.lengths), tokens + len(batch.tokens)
            if stop():
                return None
    unit = {
        "file": task.files[number].name,
        "documents": documents,
        "tokens": tokens,
        "itemsize": kinds(tokenizer)["dtype"].itemsize,
        "bad_lines": bad_lines,
        "sites": sites,
    }
    (partial / _UNIT).write_text(json.dumps(unit), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    try:
        partial.rename(final)
    except OSError:
        if _there(task.folder, number) is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)  # another host was faster
    return unit


def _there(folder: Path, number: int) -> dict[str, Any] | None:
    """The `unit.json` of a unit; None where it is not there, or a crash has cut off its files."""
    unit = folder / f"{number:06}"
    try:
        found = json.loads((unit / _UNIT).read_text(encoding="utf-8"))
        sizes = [(unit / name).stat().st_size for name in ("tokens", "lengths")]
        whole = [found["tokens"] * found["itemsize"], found["documents"] * 8]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if sizes == whole else None


def join(
    job: DatasetJob,
    files: Sequence[File],
    tokenizer: Tokenizer,
    folder: Path,
    result: Path,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Writes the shards of all units, as `write_shards` would of all documents.

    Returns: what `shards.json` says.
    Raises:
        DataError: there are no documents, or more bad lines than the data set may have.
        OSError: writing failed.
    """
    about = {"job": job.id, "dataset": job.name}
    bad = BadLines(job.bad_lines, lambda m: on_event({"event": "bad_line", **about, "message": m}))
    sites = {"kept": 0, "dropped": 0}

    def batches() -> Iterator[Batch]:
        for number in range(len(files)):
            unit = _there(folder / UNITS, number)
            assert unit is not None, f"unit {number} is not there"
            for message in unit["bad_lines"]:
                place, _, reason = message.partition(": ")
                bad.report(place, reason)
            for key, count in unit["sites"].items():
                sites[key] += count
            yield from _read(folder / UNITS / f"{number:06}", kinds(tokenizer)["dtype"])
            stopping.check(f"`{job.id}` is joined anew, from what is tokenized")

    summary = write_splits(
        batches(),
        result,
        SUMMARY,
        holdout=Fraction(job.holdout),
        seed=job.seed,
        name=job.name,
        **kinds(tokenizer),
    )
    if job.source.get("sites"):
        on_event({"event": "sites", **about, **sites})
    return summary


def _read(unit: Path, dtype: np.dtype) -> Iterator[Batch]:
    lengths = np.fromfile(unit / "lengths", "<i8")
    ends = np.cumsum(lengths)
    begin = token = 0
    with (unit / "tokens").open("rb") as file:
        while begin < len(lengths):
            end = max(int(np.searchsorted(ends, token + _JOINED)), begin + 1)
            last = int(ends[min(end, len(ends)) - 1])
            yield Batch(np.fromfile(file, dtype, last - token), lengths[begin:end])
            begin, token = end, last
