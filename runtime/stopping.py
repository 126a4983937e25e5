"""Stopping a run: a signal sets a flag, and work ends at a point from which it can continue.

SIGTERM, SIGUSR1 and the first Ctrl-C ask a run to stop; a second Ctrl-C stops it at once. Training
checks the flag between steps (`engine/border.py`, where all ranks agree), everything else between
batches, prompts, tensors or measures.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from .errors import Interrupted

ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Signals that ask a run to stop."""

HELP = "run again to continue"

Tell = Callable[[str], None]


class _Flag:
    """What this process knows about a request to stop.

    Attributes:
        asked: the number of the first signal; 0 if there was none.
        at_once: whether a second Ctrl-C came.
        tell: called with the name of the signal.
        ranks: processes that are asked to stop as soon as this one is.
        depth: how many `listening` contexts are open.
    """

    asked = 0
    at_once = False
    tell: Tell | None = None
    ranks: frozenset[int] = frozenset()
    depth = 0


_flag = _Flag()


def asked() -> int:
    """The number of the signal that asked this process to stop; 0 if none did."""
    return _flag.asked


def name_of(number: int) -> str:
    """The name of a signal for messages."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def interrupted(number: int, what: str) -> Interrupted:
    """The end of a run that a signal asked to stop.

    Args:
        what: what is kept, or where the run continues from.
    """
    return Interrupted(f"stopped by {name_of(number)}: {what}", HELP)


def check(what: str) -> None:
    """Ends the work here if this process was asked to stop.

    Raises: Interrupted.
    """
    if _flag.asked:
        raise interrupted(_flag.asked, what)


@contextmanager
def listening(*, last: bool = False) -> Iterator[None]:
    """Treats signals as requests to stop while the context is open; in the main thread only.

    Processes forked meanwhile still end at SIGTERM, and leave Ctrl-C to this one.

    Args:
        last: the process ends after this. SIGTERM and SIGUSR1 are ignored until then, so that a
            request that is repeated, or comes too late, does not change its exit code.

    Raises: KeyboardInterrupt: at a second Ctrl-C, even if a library turned it into another error.
    """
    _flag.asked = 0
    _flag.at_once = False

    def handle(number: int, frame: FrameType | None) -> None:
        if _flag.asked:
            if number == signal.SIGINT:
                _flag.at_once = True
                raise KeyboardInterrupt
            return
        _flag.asked = number
        _ask(_flag.ranks)
        _tell()

    before = {number: signal.signal(number, handle) for number in ASKING}
    _flag.depth += 1
    try:
        yield
    except BaseException as problem:
        if _flag.at_once and not isinstance(problem, KeyboardInterrupt):
            raise KeyboardInterrupt from problem
        raise
    finally:
        _flag.depth -= 1
        _flag.asked = 0
        for number, handler in before.items():
            late = last and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if late else handler)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Calls `tell` with the name of the signal, once, in its own thread."""
    _flag.tell = tell
    try:
        if _flag.asked:
            _tell()
        yield
    finally:
        _flag.tell = None


def _tell() -> None:
    tell, name = _flag.tell, name_of(_flag.asked)
    if tell:
        # This thread may be in the middle of printing with what `tell` prints with.
        threading.Thread(target=tell, args=(name,), daemon=True).start()


@contextmanager
def handing_on() -> Iterator[Callable[[int], None]]:
    """Yields a function that registers a process to be asked to stop as soon as this one is."""

    def add(process: int) -> None:
        _flag.ranks |= {process}
        if _flag.asked:
            _ask({process})

    try:
        yield add
    finally:
        _flag.ranks = frozenset()


def _ask(processes: frozenset[int] | set[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _after_fork() -> None:
    if _flag.depth:
        for number in ASKING:
            ctrl_c = number == signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ctrl_c else signal.SIG_DFL)


os.register_at_fork(after_in_child=_after_fork)
