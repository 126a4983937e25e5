"""Runs `etude`, or ranks of the engine, many times without importing torch each time.

A process that has imported everything forks the processes of each command, which then do what they
would do on their own: they have their own process ids, are killed like any other, and take nothing
from those before them.

    python forking.py    reads commands as lines of JSON, and tells of each its process and its end
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
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
    """Commands, one at a time.

    Args:
        environment: of all commands.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=self._environment,
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
        """Runs a command of `etude` to its end.

        Args:
            disturb: is called with the process once it has begun.
            environment: variables that only this command has.
        """
        return self._command(None, arguments, cwd, [environment or {}], disturb)

    def ranks(
        self, program: Path, *arguments: str, count: int, cwd: Path, **variables: str
    ) -> Ended:
        """Runs a program of Python on so many ranks, which meet as those of torchrun do; if one
        fails, the others are killed."""
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        counts = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        own = [
            variables | meeting | counts | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            for rank in range(count)
        ]
        return self._command(str(program), arguments, cwd, own, lambda process: None)

    def _command(
        self,
        program: str | None,
        arguments: Sequence[str],
        cwd: Path,
        own: Sequence[Mapping[str, str]],
        disturb: Callable[[int], None],
    ) -> Ended:
        with tempfile.TemporaryDirectory() as folder:
            said, wrong = Path(folder, "stdout"), Path(folder, "stderr")
            self._tell(
                {
                    "program": program,
                    "arguments": arguments,
                    "cwd": str(cwd),
                    "said": str(said),
                    "wrong": str(wrong),
                    "environments": [self._environment | dict(each) for each in own],
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


@cache
def shared() -> Forking:
    """The server of this process's tests, which ends with it."""
    given = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT", "ETUDE_ALONE")
    return Forking({name: value for name, value in os.environ.items() if name not in given})


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def serve() -> None:
    """Forks the processes of each command on standard input."""
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
        processes: list[int] = []
        for environment in command["environments"]:
            process = os.fork()
            if process == 0:
                os.close(answers)
                os._exit(_begun(command, environment, main.main))
            processes.append(process)
        os.write(answers, f"{processes[0]}\n".encode())
        os.write(answers, f"{_end(processes)}\n".encode())


def _end(processes: list[int]) -> int:
    """The exit code of the first process that fails, or the negative number of what has killed it;
    those that are left are killed then."""
    deadline = time.monotonic() + PATIENCE
    left, code = set(processes), 0
    while left:
        for process in sorted(left):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                left.remove(process)
                code = code or os.waitstatus_to_exitcode(status)
        late = time.monotonic() > deadline
        if late:
            deadline += PATIENCE
            print(f"processes {sorted(left)} hang", file=sys.stderr)
        if late or code:
            for process in left:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    return code


def _begun(
    command: dict[str, Any],
    environment: dict[str, str],
    main: Callable[[Sequence[str] | None], int],
) -> int:
    """What a process of a command does; returns its exit code."""
    import atexit
    import runpy
    import traceback

    os.setsid()
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "said"), (2, "wrong")):
        file = os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
    program = command["program"]
    try:
        sys.argv = [program or "etude", *command["arguments"]]
        if program:
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
            code = 0
        else:
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
