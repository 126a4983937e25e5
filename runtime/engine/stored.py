"""Checkpoints of a run folder in a store; of other run folders all of this does nothing."""

from pathlib import Path

from ..run_folder.saved import SUMS
from ..stores.pulling import sums
from ..stores.remote import remote_above
from .checksums import METADATA


def take_stored(work: Path) -> None:
    """Fetches, on rank 0, what says which checkpoints of a job the store has.

    Raises: Interrupted: the store is out of reach.
    """
    if remote := remote_above(work):
        with remote.going():
            sums(remote, work)


def take_named(checkpoint: Path) -> None:
    """Fetches, on another rank, what says what a checkpoint consists of.

    Raises: Interrupted: the store is out of reach.
    """
    remote = remote_above(checkpoint)
    if remote is None:
        return
    wanted = [checkpoint / name for name in (METADATA, SUMS)]
    missing = [remote.name(path) for path in wanted if not path.is_file()]
    with remote.going():
        remote.get_small(missing)


def send_steps(folder: Path) -> None:
    """Sends the steps so far, on rank 0, before a checkpoint that stands for them.

    Raises: Interrupted: the store is out of reach.
    """
    if remote := remote_above(folder):
        with remote.going():
            remote.send(metrics=True, rest=False)


def copy_stored(checkpoint: Path, target: Path) -> None:
    """Copies a checkpoint that stays to where the result has it, inside of the store.

    Raises: Interrupted: the store is out of reach.
    """
    if remote := remote_above(checkpoint):
        old, new = remote.name(checkpoint), remote.name(target)
        with remote.going():
            names = [n for n in remote.bucket.listed(old) if n.startswith(f"{old}/")]
            remote.bucket.copy({name: new + name.removeprefix(old) for name in names})


def remove_stored(checkpoint: Path) -> None:
    """Removes a checkpoint from the store, in the background, its checksums first."""
    if remote := remote_above(checkpoint):
        remote.remove_later(f"{remote.name(checkpoint)}/")
