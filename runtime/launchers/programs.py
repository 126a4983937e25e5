"""Programs of engines, such as kubectl and sky, which launches and `etude cancel` call."""

import shutil
import subprocess
from collections.abc import Sequence

from ..errors import RunError

SECONDS = 600.0
"""A program that runs for longer than this counts as hung."""


class Refused(RunError):
    """A program ended with an error.

    Attributes:
        said: what it wrote to standard error.
    """

    def __init__(self, message: str, help: str, said: str) -> None:
        super().__init__(message, help)
        self.said = said


def require(program: str, help: str) -> None:
    """Raises: RunError: the program is not installed here."""
    if shutil.which(program) is None:
        raise RunError(f"`{program}` is not installed here, or not in PATH", help)


def call(command: Sequence[str], *, text: str | None = None, help: str = "") -> str:
    """Runs a program to its end; returns its standard output.

    Args:
        text: for its standard input.
        help: what to do if it fails.

    Raises:
        Refused: it ended with an error.
        RunError: it could not be started, or did not end.
    """
    what = " ".join([command[0], *(word for word in command[1:3] if not word.startswith("-"))])
    try:
        ended = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"`{what}` has not ended after {SECONDS:.0f} s", help) from None
    except OSError as problem:
        raise RunError(f"`{command[0]}` cannot be started: {problem.strerror}", help) from None
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip()
        first = next((line for line in said.splitlines() if line.strip()), "no reason is given")
        raise Refused(f"`{what}` fails: {first.strip()}", help, said)
    return ended.stdout
