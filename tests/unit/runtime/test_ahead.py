"""Reading ahead changes when things are made, and nothing else."""

import threading
import time
from collections.abc import Iterator

import pytest

from etude.runtime.data.order.ahead import Ahead


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "etude-reads-ahead"]


def test_all_items_in_order_and_then_the_end():
    ahead = Ahead(range(1000), 3)
    assert list(ahead) == list(range(1000))
    assert list(ahead) == []
    assert threads() == []


def test_none_is_an_item_too():
    assert list(Ahead([None, [], None], 1)) == [None, [], None]


def test_no_more_is_made_than_may_wait():
    made = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    ahead = Ahead(items(), 4)
    wait_until(lambda: len(made) == 5)  # four that wait, and one in the thread's hand
    time.sleep(0.3)
    assert len(made) == 5
    assert next(ahead) == 0
    wait_until(lambda: len(made) == 6)
    ahead.close()


def test_an_error_comes_after_the_items_before_it_and_as_it_was():
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("document 3 is damaged")

    ahead = Ahead(items(), 10)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="document 3 is damaged") as caught:
        next(ahead)
    assert any(entry.name == "items" for entry in caught.traceback)
    assert threads() == []
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_error_that_nobody_comes_to_is_nobodys():
    def items() -> Iterator[int]:
        yield 0
        raise LookupError

    ahead = Ahead(items(), 10)
    assert next(ahead) == 0
    ahead.close()
    assert threads() == []


def test_an_error_at_the_beginning():
    def begin() -> None:
        raise OSError("no device")

    with pytest.raises(OSError, match="no device"):
        next(Ahead(range(3), 2, begin=begin))


def test_closing_ends_a_thread_that_waits_and_can_be_done_twice():
    ahead = Ahead(iter(int, 1), 2)
    assert next(ahead) == 0
    ahead.close()
    ahead.close()
    assert threads() == []
    with pytest.raises(StopIteration):
        next(ahead)


def wait_until(true) -> None:
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()
