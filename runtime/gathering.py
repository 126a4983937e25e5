"""Gangs whose run folder is in a store, of which each node has a local folder of its own.

What only some node's disk has goes up before the first job, and the logs of all nodes go up while
they work. Elsewhere nothing here has an effect.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from .errors import RunError
from .ranks import Ranks
from .run_folder.lease import INHERITED
from .run_folder.store import Store
from .stores.objects import StoreError
from .stores.pulling import take_log
from .stores.unsent import complete, drop, send_parts, unsent


def bring_log(store: Store, rank: int) -> None:
    """Fetches the log of a rank, which may have been on another node before.

    A store that cannot be reached is no error here: `require_nodes` reports it for all ranks.
    """
    remote = store.remote
    if remote is None or INHERITED in os.environ:
        return
    remote.bucket.patient = False
    with suppress(RunError):
        take_log(remote, store.log_of(rank))
    remote.bucket.patient = True


def send_unsent(store: Store, ranks: Ranks) -> None:
    """Sends checkpoints and results that the store lacks and whose files nodes have; removes those
    of which parts are missing. All ranks call this together, once they know which have a local
    folder of their own; rank 0 has the lease.

    Raises: Interrupted: the store cannot be reached.
    """
    remote = store.remote
    if remote is None:
        return
    looks = store.held is not None and store.held.mine  # else the process with the lease has looked
    looks = looks if ranks.rank == 0 else remote.apart and ranks.place.local_rank == 0
    with remote.going():
        found = ranks.collect("unsent", json.dumps(unsent(remote) if looks else {}).encode())
        marks = None
        if found is not None:  # of a mark that several nodes have, rank 0's counts
            of_ranks = (json.loads(each).items() for each in reversed(found))
            marks = json.dumps(dict(chain.from_iterable(of_ranks))).encode()
        marks = json.loads(ranks.share("wanted", marks))
        if looks:
            send_parts(remote, marks)
        incomplete = None
        if ranks.collect("sent", b"") is not None:
            incomplete = json.dumps(complete(remote, marks)).encode()
        missing = json.loads(ranks.share("incomplete", incomplete))
        if looks:
            drop(remote, missing)


@contextmanager
def sending_log(store: Store, ranks: Ranks) -> Iterator[None]:
    """Sends this rank's log, on another node than rank 0's, also if a problem ends the rank."""
    remote, path = store.remote, store.log_of(ranks.rank)
    if remote is None or not remote.apart:
        yield
        return

    def last() -> None:
        remote.bucket.patient = False
        with suppress(StoreError, OSError):
            remote.send_log(path)

    ranks.before_exit = last
    with remote.following_log(path):
        yield


@contextmanager
def leading(store: Store, ranks: Ranks) -> Iterator[None]:
    """Tells, on rank 0, which ranks are late. If a problem ends the gang, sends events, logs and
    steps and gives up the lease, so that the next start of the run, on whatever host, need not
    wait."""

    def late(numbers: list[int], names: str) -> None:
        said = f"no heartbeat of {names}" if numbers else "all ranks send heartbeats again"
        with suppress(RunError):  # a full disk, which the next event reports
            store.tell({"event": "ranks", "late": numbers, "message": said})

    ranks.on_late = late
    remote, held = store.remote, store.held
    if remote is None or held is None or not held.mine:
        yield
        return

    def last() -> None:
        remote.bucket.patient = False
        with suppress(StoreError, OSError):
            remote.send(metrics=True, rest=True)
        held.release()

    ranks.before_exit = last
    yield
