"""Reading ahead: a thread prepares the next items in the background."""

from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK = 0.1
"""How often, in seconds, a waiting thread checks whether to stop."""


class Ahead(Generic[T], Iterator[T]):
    """The items of an iterable, prepared a few ahead by a background thread.

    Items come in order. An error comes after all items before it. Items that were prepared and
    never taken have no effect. The thread ends after the last item, after the first error, or soon
    after `close`.

    Args:
        items: iterated over only by the thread.
        most: how many items may wait to be taken.
        begin: what the thread does first.
    """

    def __init__(
        self, items: Iterable[T], most: int, *, begin: Callable[[], None] | None = None
    ) -> None:
        # A list of one item; an empty one at the end. Two queues without a limit, one for items and
        # one for the room that is left, cost a tenth of one with a limit.
        self._made: SimpleQueue[list[T] | BaseException] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._room.put(None)
        self._closed = Event()
        self._thread = Thread(
            target=self._make, args=(items, begin), name="etude-reads-ahead", daemon=True
        )
        self._thread.start()

    def __next__(self) -> T:
        if self._closed.is_set():
            raise StopIteration
        made = self._made.get()
        self._room.put(None)
        if isinstance(made, list) and made:
            return made[0]
        self.close()
        if isinstance(made, BaseException):
            raise made
        raise StopIteration

    def close(self) -> None:
        """Stops the thread and waits for it; items not yet taken are dropped."""
        self._closed.set()
        self._thread.join()

    def _make(self, items: Iterable[T], begin: Callable[[], None] | None) -> None:
        try:
            if begin is not None:
                begin()
            for item in items:
                if not self._put([item]):
                    return
            self._put([])
        except BaseException as error:
            self._put(error)

    def _put(self, made: list[T] | BaseException) -> bool:
        """Whether the items are still needed."""
        while not self._closed.is_set():
            try:
                self._room.get(timeout=_LOOK)
            except Empty:
                continue
            self._made.put(made)
            return True
        return False
