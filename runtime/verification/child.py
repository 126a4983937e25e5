"""The process in which answers are verified: `python -P -m etude.runtime.verification.child`.

It reads requests, one a line of JSON, and writes replies. It bounds the processor time and the
memory that an answer can take; what goes beyond it ends the process, and the parent starts another.
"""

import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from .kinds import Faulty, Score, prepare, scorer

SECONDS = 2
"""Processor time after which an answer is interrupted, and is wrong."""
MORE = 2
"""Seconds after that until the system ends the process: code in C is not interrupted."""
MEMORY = 4 << 30
"""Bytes of address space."""


class _OutOfTime(BaseException):
    """The answer has taken too long. Libraries catch `Exception`, and must not catch this."""


def _interrupt(number: int, frame: Any) -> None:
    raise _OutOfTime


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no reply
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGPROF, _interrupt)
    asked = (json.loads(line) for line in sys.stdin)
    first = next(asked)
    try:
        found = {name: scorer(each, Path(first["root"])) for name, each in first["of"].items()}
        for each in first["of"].values():
            prepare(each)
    except Faulty as problem:
        _reply(replies, {"message": problem.message, "help": problem.help})
        return
    except ImportError as problem:
        _reply(replies, {"message": str(problem), "help": "install it"})
        return
    _limit(resource.RLIMIT_AS, MEMORY)
    _reply(replies, {})
    for each in asked:
        _reply(replies, {"score": _score(found[each["name"]], each["right"], each["text"])})


def _score(score: Score, right: list[str], text: str) -> float:
    """0 for an answer that takes too long or too much memory, or that a library cannot take."""
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + SECONDS + MORE)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return score(right, text)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, _OutOfTime):
        return 0.0


def _limit(which: int, most: int) -> None:
    """Lowers a limit; a system that does not know it keeps its own."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    try:
        resource.setrlimit(which, (most, hard))
    except (ValueError, OSError):
        return


def _reply(to: TextIO, reply: dict[str, Any]) -> None:
    to.write(json.dumps(reply) + "\n")
    to.flush()


if __name__ == "__main__":
    main()
