"""The processes that verify answers, from the outside: one starts when all others are busy, or an
answer has ended it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Interrupted, RunError
from ..stopping import HELP

START = 300
"""Seconds that the process may take to start, on a slow file system."""
ANSWER = 120
"""Seconds after which an answer has failed that has used up no processor time."""
TIMES = 3
"""How often the process is started for one answer if it is killed."""
_CHILD = "etude.runtime.verification.child"


class Processes:
    """Processes that verify answers; any thread may ask, and each gets one of its own.

    Args:
        of: verifiers of the plan, as JSON.
        root: the folder of the spec.
    """

    def __init__(self, of: Mapping[str, Mapping[str, Any]], root: Path) -> None:
        self._first = {"of": of, "root": os.path.abspath(root)}
        self._free: list[_Child] = []

    def start(self) -> None:
        """Raises:
        RunError: a verifier cannot be used, or a process does not start.
        Interrupted: something else keeps ending it.
        """
        self._reply(None)

    def score(self, name: str, right: list[str], text: str) -> float:
        """The score of an answer; 0 if verifying it has ended the process. Raises as `start`."""
        reply = self._reply({"name": name, "right": right, "text": text})
        return reply["score"] if reply else 0.0

    def _reply(self, request: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The reply to a request, if there is one and it does not end the process."""
        for _ in range(TIMES):
            child = self._taken()
            begun = {} if child.began else child.ask(self._first, START)
            if begun is None and child.was_killed():
                continue
            if begun is None or "message" in begun:
                child.end()
                said = begun or {"message": "the process that verifies answers does not start"}
                raise RunError(said["message"], said.get("help", f"try: python -m {_CHILD}"))
            child.began = True
            reply = child.ask(request, ANSWER) if request else {}
            if reply is not None:
                self._free.append(child)
                return reply
            if not child.was_killed():
                child.end()
                return None
        raise Interrupted(
            f"the process that verifies answers was killed {TIMES} times, as the system does when "
            "memory runs out",
            HELP,
        )

    def _taken(self) -> "_Child":
        """A process that no other thread has."""
        try:
            return self._free.pop()
        except IndexError:
            return _Child()


class _Child:
    """One process, and its replies that are not read yet.

    Attributes:
        began: whether it has said that it can verify.
    """

    def __init__(self) -> None:
        self.began = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._read = b""
        # It also ends by itself when its input does, that is with this process.
        weakref.finalize(self, _end, self._process)

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """The reply; None if the process has ended, or has not replied in time."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self._reply(time.monotonic() + seconds)

    def _reply(self, until: float) -> dict[str, Any] | None:
        assert self._process.stdout
        place = self._process.stdout.fileno()
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not select.select([place], [], [], left)[0]:
                return None
            found = os.read(place, 1 << 16)
            if not found:
                return None
            self._read += found
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def was_killed(self) -> bool:
        """Whether it was killed from outside: SIGKILL is no signal that an answer can cause, within
        the limits of `child`."""
        try:
            killed = self._process.wait(timeout=1) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False
        if killed:
            self.end()
        return killed

    def end(self) -> None:
        _end(self._process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except OSError:
            continue  # what was written to a process that has ended
