"""Checkpoints of a run folder in a store; for other run folders, nothing here has an effect."""

from pathlib import Path

from ...run_folder.saved import SUMS, step_of
from ...stores.pulling import renew, sums
from ...stores.remote import remote_above


def take_stored(work: Path) -> None:
    """Fetches, on rank 0, the list of a job's checkpoints in the store.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(work):
        with remote.going():
            sums(remote, work)


def take_named(checkpoint: Path) -> None:
    """Fetches, on another rank, the list of a checkpoint's contents.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(checkpoint):
        with remote.going():
            renew(remote, checkpoint)


def settle_removals(folder: Path) -> None:
    """Waits until what this process removes from the store is gone: it may be written again."""
    if remote := remote_above(folder):
        remote.settle()


def send_steps(folder: Path) -> None:
    """Sends the steps so far, on rank 0, before the checkpoint that includes them.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(folder):
        with remote.going():
            remote.send(metrics=True, rest=False)


def send_file(path: Path) -> None:
    """Sends a file that this rank has written and that changes no more.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(path):
        remote.record(path)


def copy_stored(checkpoint: Path, target: Path) -> None:
    """Copies a checkpoint that is kept to its place in the result, within the store.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(checkpoint):
        old, new = remote.name(checkpoint), remote.name(target)
        with remote.going():
            names = [n for n in remote.bucket.listed(old) if n.startswith(f"{old}/")]
            remote.bucket.copy({name: new + name.removeprefix(old) for name in names})


def remove_stored(checkpoint: Path) -> None:
    """Removes a checkpoint from the store in the background, beginning with its checksums."""
    if remote := remote_above(checkpoint):
        remote.remove_later(f"{remote.name(checkpoint)}/")


def drop_stored(folder: Path, step: int) -> None:
    """Removes the checkpoints after a step from the store, and waits until they are gone.

    Raises: Interrupted: the store is unreachable.
    """
    if remote := remote_above(folder):
        with remote.going():
            remote.settle()
            names = [
                name
                for name in remote.bucket.listed(remote.name(folder))
                if any(step_of(Path(part)) > step for part in name.split("/"))
            ]
            # Half a checkpoint must not look complete.
            names.sort(key=lambda name: not name.endswith(f"/{SUMS}"))
            remote.bucket.remove(names)
            for name in names:
                remote.objects.pop(name, None)


def has_own_folder(path: Path) -> bool:
    """Whether this rank's node has a local folder of its own of the run's store, so that what is
    stale there is removed by its ranks, too."""
    remote = remote_above(path)
    return remote is not None and remote.apart
