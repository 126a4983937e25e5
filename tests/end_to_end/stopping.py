"""Runs of the command line that get signals, in a terminal and outside of one."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from etude_cli import COMMAND, environment

PATIENCE = 300
"""Seconds after which something that is waited for will not come."""


def signalled(
    number: int,
    condition: Callable[[], bool],
    *arguments: str | Path,
    cwd: Path,
    whom: Callable[[int], int] = lambda process: process,
) -> subprocess.CompletedProcess[str]:
    """Runs a command that gets a signal once the condition holds, if it has not ended by then.

    Args:
        whom: gives the process that gets it, from the one that was started.
    """
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(whom(process.pid), number)
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def listens(process: int, number: int) -> bool:
    """Whether a process does something of its own at a signal, and does not just end."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    (mask,) = (line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def rank_of(process: int, rank: int) -> int:
    """The process that is a rank of the gang which another process has started."""
    for child in descendants(process):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"LOCAL_RANK={rank}".encode() in variables and b"TORCHELASTIC" in b"".join(variables):
            return child
    raise AssertionError(f"rank {rank} is not there")


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and theirs, oldest first."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    children = [int(word) for word in text.split()]
    return [each for child in children for each in (child, *descendants(child))]


class Terminal:
    """A command in a terminal of its own.

    Attributes:
        shown: what it has written so far.
    """

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        self.shown = ""
        self._process, self._master = pty.fork()
        if self._process == 0:
            os.chdir(cwd)
            os.execvpe(COMMAND[0], [*COMMAND, *map(str, arguments)], environment())

    def wait_for(self, text: str) -> None:
        """Reads until a text is shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, f"never shown: {text}\n{self.shown}"
            assert self._read(), f"ended without: {text}\n{self.shown}"

    @property
    def text(self) -> str:
        """What is shown, without the ends of lines, which depend on the width."""
        return " ".join(self.shown.split())

    def press(self, keys: bytes) -> None:
        """Types something."""
        os.write(self._master, keys)

    def end(self) -> int:
        """Waits for the end, and returns the exit code."""
        while self._read():
            pass
        _, status = os.waitpid(self._process, 0)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        """Reads what is there within a second; whether more may come."""
        if select.select([self._master], [], [], 1)[0]:
            try:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                return False
        return True
