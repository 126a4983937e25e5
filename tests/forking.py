"""Runs `etude` many times without importing torch each time.

A process that has imported everything forks one process for each command, which then does what
`etude` does: it has its own process id, is killed like any other, and takes nothing from the last.

    python forking.py    reads commands as lines of JSON, and tells of each its process and its end
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

PATIENCE = 1800
"""Seconds after which a command hangs."""


class Ended(NamedTuple):
    """A command that has ended; `code` is negative for a signal that has killed it."""

    code: int
    out: str
    err: str


class Forking:
    """Commands of `etude`, one at a time.

    Args:
        environment: of all commands.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()

    def run(
        self,
        *arguments: str,
        cwd: Path,
        disturb: Callable[[int], None] = lambda process: None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs a command to its end.

        Args:
            disturb: is called with the process once it has begun.
            environment: variables that only this command has.
        """
        said, wrong = cwd / "stdout", cwd / "stderr"
        self._tell(
            {
                "arguments": arguments,
                "cwd": str(cwd),
                "said": str(said),
                "wrong": str(wrong),
                "environment": dict(environment or {}),
            }
        )
        process = self._hear()
        disturb(process)
        code = self._hear()
        return Ended(code, said.read_text(), wrong.read_text())

    def _tell(self, command: dict[str, Any]) -> None:
        assert self._server.stdin
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()

    def _hear(self) -> int:
        assert self._server.stdout
        return int(self._server.stdout.readline())


def serve() -> None:
    """Forks a process for each command on standard input."""
    from etude.cli import main
    from etude.runtime import imports

    for name in main.COMMANDS:
        main._module(name)
    imports.engine("cpu")
    for name in ("jobs.measuring", "jobs.models", "jobs.training", "jobs.data", "gang"):
        __import__(f"etude.runtime.{name}")
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        process = os.fork()
        if process == 0:
            os.close(answers)
            os._exit(_command(command, main.main))
        os.write(answers, f"{process}\n".encode())
        os.write(answers, f"{_end(process)}\n".encode())


def _end(process: int) -> int:
    """The exit code of a process, or the negative number of what has killed it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, 9)
            deadline += PATIENCE
            print(f"process {process} hangs", file=sys.stderr)
        time.sleep(0.01)


def _command(command: dict[str, Any], main: Callable[[Sequence[str] | None], int]) -> int:
    """What a process of `etude` does; returns its exit code."""
    import atexit
    import traceback

    os.setsid()
    os.chdir(command["cwd"])
    os.environ.update(command["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "said"), (2, "wrong")):
        file = os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    try:
        sys.argv = ["etude", *command["arguments"]]
        code = main(None)
        atexit._run_exitfuncs()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
