"""What this process holds from job to job on its GPU: an engine that writes."""

from collections.abc import Callable

_held: set[tuple[Callable[[], None], Callable[[], None]]] = set()


def hold(rest: Callable[[], None], end: Callable[[], None]) -> None:
    """Keeps something on the GPU until a job needs its place.

    Args:
        rest: gives the memory back; it may be called when there is nothing to give.
        end: gives everything back.
    """
    _held.add((rest, end))


def make_room() -> None:
    """Gives back the memory of all that is held, before a job that trains or reads; all ranks that
    do the job call this together."""
    for rest, _ in _held:
        rest()


def let_go() -> None:
    """Ends all that is held, before other processes use the GPU."""
    while _held:
        _held.pop()[1]()
