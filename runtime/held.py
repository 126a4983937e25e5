"""What this process holds from job to job on its GPU: an engine that writes."""

from collections.abc import Callable

_held: set[Callable[[], None]] = set()


def hold(release: Callable[[], None]) -> None:
    """Keeps something on the GPU until a job needs its place.

    Args:
        release: gives the memory back.
    """
    _held.add(release)


def make_room() -> None:
    """Gives back the memory of all that is held, before a job that trains or reads."""
    while _held:
        _held.pop()()
