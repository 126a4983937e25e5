"""Errors of the runtime: one message and one fix, never a traceback."""

from pathlib import Path


class RunError(Exception):
    """A problem in the user's plan, data or machine (exit code 1).

    Args:
        message: what is wrong and where, in the user's terms, one sentence.
        help: how to fix it, one sentence; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help


class DataError(RunError):
    """A data set, tokenizer or document that cannot be read as the spec describes."""


class Stopped(RunError):
    """The run stopped early, and a person must decide or act (exit code 3): a gate failed, training
    diverged, the disk is full, labels are awaited.
    """

    exit_code = 3


class Interrupted(Stopped):
    """The run stopped early and can be restarted unchanged (exit code 75): it was asked to stop, or
    lost a process or machine.
    """

    exit_code = 75


def reason(problem: OSError) -> str:
    """Why the system cannot use a folder, without the error number."""
    if isinstance(problem, NotADirectoryError | FileExistsError) and problem.filename:
        path = Path(problem.filename)
        for each in (*reversed(path.parents), path):
            if each.exists() and not each.is_dir():
                return f"{each} is a file, not a folder"
    if problem.strerror:
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror.lower()}"
    return str(problem)
