"""A run that is asked to stop: a signal sets a flag, and work ends where it can continue later.

SIGTERM and SIGUSR1 ask, and so does the first Ctrl-C; the second one stops at once. Training looks
at the flag between two steps (`engine/border.py`, where all ranks agree), everything else between
two batches, prompts, tensors or measures.
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
    """What this process knows of a request.

    Attributes:
        asked: the number of the first signal; 0: none.
        at_once: a second Ctrl-C came.
        tell: gets the name of the signal.
        ranks: processes that are asked as soon as this one is.
        depth: how many `listening` are open.
    """

    asked = 0
    at_once = False
    tell: Tell | None = None
    ranks: frozenset[int] = frozenset()
    depth = 0


_flag = _Flag()


def asked() -> int:
    """The number of the signal that asked this process to stop; 0: none did."""
    return _flag.asked


def name_of(number: int) -> str:
    """The name of a signal as people know it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def interrupted(number: int, what: str) -> Interrupted:
    """The end of a run that a signal has asked for.

    Args:
        what: what is kept, or from where it continues.
    """
    return Interrupted(f"stopped by {name_of(number)}: {what}", HELP)


def check(what: str) -> None:
    """Ends the work here if this process was asked to stop.

    Raises: Interrupted.
    """
    if _flag.asked:
        raise interrupted(_flag.asked, what)


@contextmanager
def listening() -> Iterator[None]:
    """Takes signals as requests to stop, for as long as the context lasts; in the main thread.

    Processes that are forked meanwhile end at SIGTERM as ever, and leave Ctrl-C to this one.

    Raises: KeyboardInterrupt: at a second Ctrl-C, whatever a library made of it on its way here.
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
            signal.signal(number, handler)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Has `tell` get the name of the signal, once, in a thread of its own."""
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
        # What it prints with may be in the middle of printing in this thread.
        threading.Thread(target=tell, args=(name,), daemon=True).start()


@contextmanager
def handing_on() -> Iterator[Callable[[int], None]]:
    """Gives a function that names a process which is asked to stop as soon as this one is."""

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
