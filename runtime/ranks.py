"""How the ranks of a gang communicate besides torch's collectives: through torch's store.

Rank 0 announces what all do next (`decision`); the others report when they are done. A thread of
each rank sends heartbeats and watches for a problem of any rank, which ends all of them with one
message from rank 0. If a collective stalls, the message names the ranks that did not reach it.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from .decision import Decision, End, Together, from_json, to_json
from .errors import Interrupted, RunError, Stopped
from .launchers.allocation import Place

TICK_SECONDS = 1.0
"""Seconds between heartbeats of a rank, in gangs of up to a thousand ranks; more in larger ones."""
SILENT_SECONDS = 90.0
"""A rank without a heartbeat for this long is lost. This is less than the timeout of torchtitan's
collectives, which on a GPU end the process without a message."""
LATE_SECONDS = 10.0
"""A rank without a heartbeat for this long is late, which is told to those who watch the run."""
TOGETHER_SECONDS = 180.0
"""Time limit of the first collective of all ranks."""
JOIN_SECONDS = 600.0
"""Time limit for ranks to find each other."""
PARTING_SECONDS = 20.0
"""Time limit of what a rank does before a problem ends it: sending its log to a store."""
_AGAIN = "run again to continue from the last checkpoint"
_LOGS = "the output of each rank is in logs/ of the run folder"
_KINDS = {kind.exit_code: kind for kind in (RunError, Stopped, Interrupted)}
_OTHERS_FAULT = ("connection", "timed out", "timeout", "broken pipe", "nccl", "socket", "gloo")
"""Words in the error of a collective that failed because of another rank."""

Tell = Callable[[RunError], None]


class Ranks:
    """The gang of this process."""

    def __init__(self, place: Place, tell: Tell) -> None:
        """
        Args:
            tell: called on rank 0 with the problem that ends the gang.
        """
        self.place = place
        self.rank = place.rank
        self.world_size = place.world_size
        self._tell = tell
        self.on_late: Callable[[list[int], str], None] = lambda ranks, names: None
        """Called on rank 0 with the ranks that are late, and their names and hosts in words,
        whenever others are; with none once all send heartbeats again."""
        self._late: list[int] = []
        self.before_exit: Callable[[], None] = lambda: None
        """Called before a problem ends this process; it has `PARTING_SECONDS`."""
        self._store = _join(place)
        self._number = 0
        self._received = self._told = self._met = self._said = 0, 0
        self._tick = max(TICK_SECONDS, self.world_size / 1000)
        self._ending = threading.Lock()
        self._over = threading.Event()
        self._store.set(f"host/{self.rank}", f"{socket.gethostname()} {os.getpid()}")
        self._watcher = threading.Thread(target=self._watch, name="ranks", daemon=True)
        self._watcher.start()

    # Decisions.

    def all_do(self, decision: Together, do: Callable[[], None]) -> None:
        """On rank 0: tells the others what all do next, does its part, and waits for theirs."""
        self._send(decision)
        do()
        self.arrive()
        self._wait(f"done/{self._number}")

    def end(self, decision: End) -> None:
        """On rank 0: tells the others that nothing is left to do, and waits until they know."""
        self._send(decision)
        self._rest()
        self._store.add("left", 1)
        self._all_have_left()

    def leave(self, code: int) -> None:
        """On rank 0: ends the others with an exit code; rank 0 has given the reason itself."""
        self._tell = lambda problem: None
        self._report(_KINDS.get(code, RunError)("rank 0 has ended"))
        self._over.wait()

    def hear(self) -> Decision:
        """On the others: the next decision of rank 0."""
        self._number += 1
        self._wait(f"decision/{self._number}")
        decision = from_json(self._store.get(f"decision/{self._number}"))
        if isinstance(decision, End):
            self._rest()
            self._store.add("left", 1)
        return decision

    def _rest(self) -> None:
        """Ends the watch: a thread inside torch's store when Python exits would abort the exit."""
        self._over.set()
        self._watcher.join(10 * self._tick)

    def arrive(self) -> None:
        """Reports that this rank has done its part of the last decision."""
        if self._store.add(f"arrived/{self._number}", 1) == self.world_size:
            self._store.set(f"done/{self._number}", "1")

    def share(self, name: str, value: bytes | None) -> bytes:
        """Sends rank 0's value to all ranks; the others pass None."""
        if value is not None:
            self._store.set(f"shared/{name}", value)
            return value
        self._wait(f"shared/{name}")
        return self._store.get(f"shared/{name}")

    def collect(self, name: str, value: bytes) -> list[bytes] | None:
        """Gathers every rank's value on rank 0, by rank; None on the others."""
        self._store.set(f"collected/{name}/{self.rank}", value)
        if self.rank != 0:
            return None
        found = []
        for rank in range(self.world_size):
            self._wait(f"collected/{name}/{rank}")
            found.append(self._store.get(f"collected/{name}/{rank}"))
        return found

    def send(self, message: bytes) -> None:
        """See `Peers.send`."""
        number = self._store.add(f"sent/{self._number}", 1)
        self._store.set(f"sent/{self._number}/{number}", message)

    def received(self) -> bytes | None:
        """See `Peers.received`."""
        number = self._next(self._received)
        key = "sent/{}/{}".format(*number)
        if not self._store.check([key]):
            return None
        self._received = number
        message = self._store.get(key)
        self._store.delete_key(key)
        return message

    def told(self, message: bytes) -> bytes:
        """See `Peers.told`."""
        self._told = self._next(self._told)
        key = "told/{}/{}".format(*self._told)
        if self.rank == 0:
            self._store.set(key, message)
        self._wait(key)
        return self._store.get(key)

    def all_say(self, yes: bool) -> bool:
        """See `Peers.all_say`."""
        self._said = self._next(self._said)
        key = "said/{}/{}".format(*self._said)
        if not yes:
            self._store.set(f"{key}/no", "1")
        if self._store.add(f"{key}/count", 1) == self.world_size:
            self._store.set(f"{key}/all", "1")
        self._wait(f"{key}/all")
        return not self._store.check([f"{key}/no"])

    def meet(self, first: int) -> tuple[str, int]:
        """See `Peers.meet`."""
        self._met = self._next(self._met)
        key = "meet/{}/{}/{}".format(*self._met, first)
        if self.rank == first:
            self._store.set(key, json.dumps([_address(self.place), _free_port()]))
        self._wait(key)
        address, port = json.loads(self._store.get(key))
        return address, port

    def together(self, device: str) -> None:
        """Runs one collective over all ranks, as a test that they reach each other.

        Raises: RuntimeError: they do not.
        """
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        dist.init_process_group(
            "gloo" if device == "cpu" else "nccl",
            store=PrefixStore("together", self._store),
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=TOGETHER_SECONDS),
        )
        if device != "cpu":
            # What follows uses this GPU, too, unless it asks for another one.
            torch.cuda.set_device(self.place.local_rank % torch.cuda.device_count())
        count = torch.ones(1, device="cpu" if device == "cpu" else "cuda")
        dist.all_reduce(count)
        dist.destroy_process_group()
        if int(count.item()) != self.world_size:
            raise RuntimeError(f"a sum over {self.world_size} ranks is {count.item():g}")

    def _next(self, last: tuple[int, int]) -> tuple[int, int]:
        """The next of what this decision's work does several times: its numbers."""
        decision, number = last
        return self._number, number + 1 if decision == self._number else 1

    def _send(self, decision: Decision) -> None:
        self._number += 1
        self._store.set(f"decision/{self._number}", to_json(decision))

    def _wait(self, key: str) -> None:
        """Waits without a time limit: the watch notices whatever could stop the others."""
        pause = 0.005
        while not self._store.check([key]):
            time.sleep(pause)
            pause = min(2 * pause, self._tick / 5)

    def _all_have_left(self) -> None:
        """Keeps the store, which this process may host, until all ranks know that they can go."""
        end = time.monotonic() + 10 * self._tick
        while self._store.add("left", 0) < self.world_size and time.monotonic() < end:
            time.sleep(0.05)

    # Problems.

    def fail(self, error: Exception) -> None:
        """Ends the gang and this process because of an error of this rank; does not return."""
        if isinstance(error, Interrupted) and self.rank == 0 and (lost := self._lost()):
            # The process that started the ranks asks the remaining ones to stop.
            self._report_lost(lost)
        elif isinstance(error, RunError):
            self._report(error)
        else:
            traceback.print_exception(error)
            if _is_others_fault(error):
                self._store.set(f"error/{self.rank}", str(error))
                self._report_others(error)
            else:
                self._report(
                    Interrupted(
                        f"{type(error).__name__}: {_first_line(error)}; the end of "
                        f"logs/rank-{self.rank}.log has more",
                        _AGAIN,
                    )
                )
        # The watch ends the process once rank 0 has reported the problem.
        time.sleep(SILENT_SECONDS)
        _exit(Interrupted.exit_code)

    def _report(self, problem: RunError) -> None:
        """Reports a problem of this rank to all; only the first one counts."""
        message = problem.message
        if self.rank != 0:
            message = f"{self._names([self.rank])}: {message}"
        about = {"message": message, "help": problem.help, "exit_code": problem.exit_code}
        self._store.compare_set("problem", "", json.dumps(about))

    def _report_others(self, error: Exception) -> None:
        """On rank 0: finds out which ranks made a collective fail; the others wait for it."""
        if self.rank != 0:
            return
        if lost := self._lost():
            self._report_lost(lost)
            return
        others = range(1, self.world_size)
        late = [rank for rank in others if not self._store.check([f"error/{rank}"])]
        if "time" in str(error).lower() and late:
            said = f"{self._names(late)} did not reach a collective step in time"
        else:
            said = f"a collective step of all ranks has failed: {_first_line(error)}"
        self._report(Interrupted(f"{said}; {_LOGS}", _AGAIN))

    def _lost(self) -> list[int]:
        """On rank 0: the ranks that currently send no heartbeats."""
        before = self._signs()
        time.sleep(max(3 * self._tick, 3.0))
        now = self._signs()
        return [rank for rank in range(1, self.world_size) if now[rank] == before[rank]]

    def _report_lost(self, lost: list[int]) -> None:
        does = "has ended or does" if len(lost) == 1 else "have ended or do"
        self._report(Interrupted(f"{self._names(lost)} {does} not answer; {_LOGS}", _AGAIN))

    def _names(self, ranks: Iterable[int]) -> str:
        """Ranks with their hosts, in words; only the first few if there are many."""
        ranks = list(ranks)
        shown = []
        for rank in ranks[:4]:
            known = self._store.check([f"host/{rank}"])
            host = self._store.get(f"host/{rank}").decode().split() if known else None
            shown.append(f"rank {rank}" + (f" on {host[0]} (process {host[1]})" if host else ""))
        more = len(ranks) - len(shown)
        return " and ".join([*shown, f"{more} more"] if more else shown)

    # The watch, in a thread of its own.

    def _watch(self) -> None:
        beats = 0
        seen: dict[int, tuple[str | None, float]] = {}
        while not self._over.wait(self._tick):
            beats += 1
            try:
                self._store.set(f"beat/{self.rank}", str(beats))
                if self._store.check(["problem"]):
                    self._end(json.loads(self._store.get("problem")))
                self._look_for_lost(seen)
            except Exception as error:
                if not self._over.is_set():
                    # Rank 0 is gone, or the process that hosts its store.
                    print(f"rank {self.rank} has lost rank 0: {error}", file=sys.stderr)
                    self._part()
                    _exit(Interrupted.exit_code)

    def _look_for_lost(self, seen: dict[int, tuple[str | None, float]]) -> None:
        """Reports ranks without a heartbeat: rank 0 watches all others, and they watch rank 0."""
        now = time.monotonic()
        watched = range(1, self.world_size) if self.rank == 0 else range(1)
        for rank, sign in self._signs(watched).items():
            if rank not in seen or seen[rank][0] != sign:
                seen[rank] = sign, now
        self._tell_late([r for r, (sign, at) in seen.items() if sign and now - at > LATE_SECONDS])
        limit = {True: JOIN_SECONDS, False: SILENT_SECONDS}
        lost = [r for r, (sign, since) in seen.items() if now - since > limit[sign is None]]
        if not lost:
            return
        if self.rank != 0:
            print(f"rank 0 does not answer; rank {self.rank} ends", file=sys.stderr)
            self._part()
            _exit(Interrupted.exit_code)
        seconds = max(now - seen[rank][1] for rank in lost)
        self._report(
            Interrupted(
                f"{self._names(lost)} {'has' if len(lost) == 1 else 'have'} sent no heartbeat "
                f"for {seconds:.0f} s; {_LOGS}",
                _AGAIN,
            )
        )

    def _tell_late(self, late: list[int]) -> None:
        if self.rank == 0 and late != self._late:
            self._late = late
            self.on_late(late, self._names(late))

    def _signs(self, ranks: Iterable[int] | None = None) -> dict[int, str | None]:
        """Rank → its last heartbeat; None if it has sent none."""
        ranks = list(range(self.world_size) if ranks is None else ranks)
        keys = [f"beat/{rank}" for rank in ranks]
        if self._store.check(keys):
            return dict(zip(ranks, map(bytes.decode, self._store.multi_get(keys)), strict=True))
        return {
            rank: self._store.get(key).decode() if self._store.check([key]) else None
            for rank, key in zip(ranks, keys, strict=True)
        }

    def _end(self, about: Mapping[str, Any]) -> None:
        """Ends this process because of the gang's problem; rank 0 reports the problem first."""
        if not self._ending.acquire(blocking=False):
            return
        code = about["exit_code"]
        problem = _KINDS.get(code, RunError)(about["message"], about["help"])
        _keep_flight_recorder()
        try:
            if self.rank == 0:
                self._tell(problem)
            else:
                logging.getLogger(__name__).error("the gang ends: %s", problem.message)
            self._part()
            self._store.add("left", 1)
            if self.rank == 0:
                self._all_have_left()
        finally:
            _exit(code)

    def _part(self) -> None:
        """Does what is left to do before this process ends, and waits only so long for it."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        part = threading.Thread(target=self.before_exit, daemon=True)
        part.start()
        part.join(PARTING_SECONDS)


def _join(place: Place) -> Any:
    """Connects to the gang's store.

    Raises: RunError: rank 0 cannot be reached.
    """
    from torch.distributed import distributed_c10d as c10d
    from torch.distributed.rendezvous import rendezvous

    os.environ |= place.environment()
    where = f"{place.address}:{place.port}"
    try:
        socket.getaddrinfo(place.address, place.port)
    except OSError as problem:
        raise RunError(
            f"rank {place.rank} on {socket.gethostname()} does not know the host of rank 0, "
            f"{place.address}: {problem.strerror}",
            "set MASTER_ADDR to an address that all nodes can resolve",
        ) from None
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    except Exception as problem:
        used = "address already in use" in str(problem).lower() or "EADDRINUSE" in str(problem)
        if used:
            message = (
                f"rank 0 on {socket.gethostname()} cannot listen at {where}: the port is taken"
            )
            if place.computed:
                raise Interrupted(message, "start it again: it then takes another one") from None
            raise RunError(message, "set MASTER_PORT to a free one") from None
        raise Interrupted(
            f"rank {place.rank} on {socket.gethostname()} cannot reach rank 0 at {where}: "
            f"{_first_line(problem)}",
            "check whether rank 0 runs, and whether the nodes can reach each other at that port",
        ) from None
    return c10d.PrefixStore("etude", store)


def _address(place: Place) -> str:
    """An address of this host: the one by which rank 0 is found, or from which it is reached."""
    if place.rank < place.local_world_size:
        return place.address
    family = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family[0], socket.SOCK_DGRAM) as to_rank_0:
        to_rank_0.connect(family[4])  # sends nothing
        return to_rank_0.getsockname()[0]


def _free_port() -> int:
    with socket.socket() as listens:
        listens.bind(("", 0))
        return listens.getsockname()[1]


def _is_others_fault(error: Exception) -> bool:
    """Whether the error of a collective was caused by another rank."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _OTHERS_FAULT)


def _keep_flight_recorder() -> None:
    """Has NCCL write out the last collectives, if torchtitan has set a file for them."""
    path = os.environ.get("TORCH_FR_DUMP_TEMP_FILE")
    torch = sys.modules.get("torch")
    if path is None or torch is None or not torch.cuda.is_available():
        return
    try:
        from torch._C import _distributed_c10d as c10d

        trace: bytes = c10d._dump_nccl_trace()  # pyright: ignore[reportAttributeAccessIssue]
        Path(f"{path}{os.environ['RANK']}").write_bytes(trace)
    except Exception:  # it must not keep the process from ending
        traceback.print_exc()


def _exit(code: int) -> None:
    """Ends the process at once: its main thread may be waiting for a rank that never comes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
