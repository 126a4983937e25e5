"""`etude cancel`: stops a run, queued or running."""

import os
import signal
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .common import problem, run_folder_of, seen

if TYPE_CHECKING:
    from ..runtime.launchers.record import Launch
    from ..runtime.run_folder.lease import Owner

POLL_SECONDS = 0.5


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude cancel` to its parser."""
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("--yes", action="store_true", help="ask nothing")


def run(args: Namespace) -> int:
    from ..runtime.errors import RunError
    from ..runtime.launchers.launched import at_work
    from ..runtime.launchers.record import load
    from ..runtime.run_folder.homes import owner_of
    from ..runtime.run_folder.progress import is_dead
    from ..runtime.run_folder.store import Store

    try:
        folder = seen(args.folder)
        if not folder.is_dir() or ("://" in args.folder and not Store(folder).exists()):
            raise RunError(
                f"{args.folder} is not a run folder",
                run_folder_of(folder),
            )
        launch = load(folder)
        holder = owner_of(folder)
        alive = holder is not None and not is_dead(holder)
        if launch is not None and (alive or at_work(launch) is not False):
            return _launched(folder, launch, holder if alive else None, args)
        if holder is not None and alive:
            return _local(folder, holder, args)
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    print(f"no run is active in {args.folder}: there is nothing to cancel")
    return 0


def _confirmed(what: str, args: Namespace) -> bool | None:
    """Whether to continue; None, after a message, if nobody can be asked."""
    if args.yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        problem(f"this would cancel {what}", "say --yes")
        return None
    from rich.prompt import Confirm

    return Confirm.ask(f"cancel {what}?", default=False)


def _launched(folder: Path, launch: "Launch", holder: "Owner | None", args: Namespace) -> int:
    """Cancels what an engine was given.

    Raises: RunError.
    """
    from ..runtime.launchers.launched import queue_of
    from ..runtime.launchers.record import forget

    at = f", running on {holder.host}" if holder else ""
    sure = _confirmed(f"the run in {args.folder} on {launch.engine}{at}", args)
    if not sure:
        return 2 if sure is None else 0
    print("cancelling: the running jobs get time to save")
    queue_of(launch).cancel(launch.queued)
    forget(folder)
    print(f"cancelled; launch it again to continue: {args.folder} keeps the finished results")
    return 0


def _local(folder: Path, holder: "Owner", args: Namespace) -> int:
    """Asks a run's process to save and end, and waits for it.

    Raises: RunError: the process belongs to another host or user.
    """
    from ..runtime.errors import RunError

    if holder.alive is None:
        raise RunError(
            f"the run in {args.folder} is process {holder.process} on {holder.host}, but this is "
            f"{socket.gethostname()}",
            f"cancel it there: etude cancel {args.folder}",
        )
    what = f"the run in {args.folder} (process {holder.process}, since {holder.since})"
    sure = _confirmed(what, args)
    if not sure:
        return 2 if sure is None else 0
    try:
        os.kill(holder.process, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        raise RunError(
            f"process {holder.process} belongs to {holder.user}; only that user can stop it", ""
        ) from None
    print(f"process {holder.process} was told to save and stop", flush=True)
    _wait(folder, holder)
    print(f"cancelled; run it again to continue: {args.folder} keeps the finished results")
    return 0


def _wait(folder: Path, holder: "Owner") -> None:
    """Waits until the process no longer has the run folder."""
    from ..runtime.run_folder.homes import owner_of

    while True:
        now = owner_of(folder)
        if now is None or not now.alive or now.process != holder.process:
            return
        time.sleep(POLL_SECONDS)
