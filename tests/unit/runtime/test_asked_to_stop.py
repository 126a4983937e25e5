"""Requests to stop: what sets the flag, who is told, and what becomes of child processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from etude.runtime import stopping
from etude.runtime.errors import Interrupted


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # handlers run between two instructions


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), (signal.SIGUSR1, "SIGUSR1"), (signal.SIGINT, "Ctrl-C")],
)
def test_a_signal_asks_and_work_stops_at_its_next_border(number: int, name: str) -> None:
    with stopping.listening():
        stopping.check("nothing is asked yet")
        send(number)
        with pytest.raises(Interrupted, match=f"stopped by {name}: all is kept") as raised:
            stopping.check("all is kept")
    assert raised.value.exit_code == 75


def test_the_second_ctrl_c_stops_at_once_and_a_second_request_does_not() -> None:
    with stopping.listening():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stopping.asked() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_whatever_a_library_makes_of_the_second_ctrl_c_it_stops_at_once() -> None:
    class Wrapped(BaseException):
        """As torch's CheckpointException is."""

    def save() -> None:
        with stopping.listening():
            send(signal.SIGINT)
            try:
                send(signal.SIGINT)
            except KeyboardInterrupt as problem:
                raise Wrapped from problem

    with pytest.raises(KeyboardInterrupt):
        save()


def test_signals_mean_what_they_did_afterwards() -> None:
    before = [signal.getsignal(number) for number in stopping.ASKING]
    with stopping.listening():
        assert [signal.getsignal(number) for number in stopping.ASKING] != before
    assert [signal.getsignal(number) for number in stopping.ASKING] == before


def test_a_request_that_comes_too_late_does_not_end_a_process_that_ends_anyway() -> None:
    before = {number: signal.getsignal(number) for number in stopping.ASKING}
    try:
        with stopping.listening(last=True):
            send(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            assert signal.getsignal(number) == signal.SIG_IGN
            send(number)
        assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT], "Ctrl-C ends it"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_name_is_told_once_even_if_the_request_came_before() -> None:
    told: list[str] = []
    come = threading.Event()

    def tell(name: str) -> None:
        told.append(name)
        come.set()

    with stopping.listening():
        send(signal.SIGUSR1)
        with stopping.telling(tell):
            send(signal.SIGTERM)
            assert come.wait(10)
    assert told == ["SIGUSR1"]


@pytest.mark.parametrize("first", ["signal", "rank"])
def test_ranks_are_asked_whenever_they_come(first: str) -> None:
    with stopping.listening(), stopping.handing_on() as add:
        rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        if first == "signal":
            send(signal.SIGUSR1)
            add(rank.pid)
        else:
            add(rank.pid)
            send(signal.SIGUSR1)
        assert rank.wait(60) == -signal.SIGTERM


def test_a_forked_process_can_be_ended_and_leaves_ctrl_c_to_its_parent() -> None:
    with stopping.listening():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
