"""One node of a gang: starts the node's ranks and returns their exit code.

Kubernetes and SkyPilot start one command per node and look at its exit code. torchrun always ends
with 1, so they could not tell which failures a restart can fix. This command returns the codes of
a run: 0, 1, 2, 3, and 75 for every failure that a restart may well fix, such as a rank that
crashed.

    python -m etude.runtime.launchers.node RUN_FOLDER ROOT DEVICE \\
        --phase 2-gang --ranks 8 --plan plan.json.gz

With `--through 409` it does the phases from that one to the 409th, one after the other, each with
the nodes and ranks that it needs.
"""

import argparse
import gzip
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import NamedTuple

from ...compiler.plan.phases import phases
from ...compiler.plan.plan_schema import PlanError, read_plan
from ..disk import disk, write
from ..errors import RunError
from ..part import PHASE
from ..run_folder.logs import RankLog
from ..run_folder.store import LOGS, Store
from ..run_folder.variant_folders import folder_at, variant_folder
from ..stores.pulling import take_log
from ..stores.remote import remote_above
from . import parts
from .agreement import agreed
from .allocation import Place
from .launcher import WORKER
from .machines import machines
from .remaining import next_of

AGAIN = 75
"""The exit code if the run can be restarted unchanged."""
DECIDED = (1, 2, 3)
"""Exit codes that a restart does not change."""
PORT = 29_400
"""Where ranks meet if the engine sets no port."""
PATIENCE = 120.0
"""Seconds that the other ranks have to end by themselves once one has failed."""
RANK_0_FIRST = 10.0
"""Seconds that other nodes wait before they ask for a restart, so that the exit code of rank 0's
node comes first if rank 0 has decided otherwise."""
_FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass(frozen=True)
class Node:
    """One of the nodes of a gang.

    Attributes:
        number: the node's number, from 0.
        nodes: how many nodes the gang has.
        address, port: where rank 0 listens.
    """

    number: int
    nodes: int
    address: str
    port: int

    def place(self, local: int, ranks: int) -> Place:
        """The rank `local` of the `ranks` on this node."""
        rank = self.number * ranks + local
        return Place(rank, local, self.nodes * ranks, ranks, self.address, self.port)


def node(environ: Mapping[str, str]) -> Node:
    """This node according to Kubeflow Trainer or SkyPilot; without their variables, the only node.

    Raises: RunError: a variable is not a number, or one is missing.
    """
    try:
        if "PET_NNODES" in environ:
            return Node(
                int(environ["PET_NODE_RANK"]),
                int(environ["PET_NNODES"]),
                environ["PET_MASTER_ADDR"],
                int(environ["PET_MASTER_PORT"]),
            )
        if "SKYPILOT_NODE_IPS" in environ:
            addresses = environ["SKYPILOT_NODE_IPS"].split()
            return Node(int(environ["SKYPILOT_NODE_RANK"]), len(addresses), addresses[0], PORT)
    except (KeyError, ValueError, IndexError) as problem:
        raise RunError(
            f"the environment says only in part which node of the gang this is: {problem}",
            "start the node as the manifests of `etude launch` do",
        ) from None
    return Node(0, 1, "127.0.0.1", PORT)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the ranks of this node; returns 0, 1, 2, 3 or 75."""
    parser = argparse.ArgumentParser(prog="etude.runtime.launchers.node", description=__doc__)
    parser.add_argument("folder", help="the run folder: a path, or a URL of a store")
    parser.add_argument("root", type=Path)
    parser.add_argument("device")
    parser.add_argument("--phase", help="its name, which begins with its number: 2-gang")
    parser.add_argument("--through", type=int, help="the number of the last of several phases")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, help="if different from the spec's cluster")
    parser.add_argument("--parts", type=int, help="do one of so many parts of preparing instead")
    parser.add_argument("--plan", type=Path, help="the plan, gzipped, for the run folder")
    args = parser.parse_args(argv)
    try:
        place = node(os.environ)
        folder = folder_at(args.folder)
        if args.plan is not None:
            folder = take_plan(args.plan, folder, record=place.number == 0)
    except RunError as problem:
        print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
        return problem.exit_code
    if args.parts:
        return _part(folder, args)
    code = _phases(folder, place, args)
    if code == AGAIN and place.number:
        time.sleep(RANK_0_FIRST)
    return code


def _phases(folder: Path, place: Node, args: argparse.Namespace) -> int:
    """Does the phases; returns 0, 1, 2, 3 or 75."""
    if not args.phase:
        return _ranks(folder, place, args, args.ranks, {})
    first = int(args.phase.partition("-")[0])
    if args.through is None:
        return _ranks(folder, place, args, args.ranks, {PHASE: str(first)})
    code = 0
    try:
        while not code and (number := _next(folder, place, first, args.through)) <= args.through:
            first = number + 1
            plan = read_plan(folder / "plan.json")
            needs = machines(plan, phases(plan)[number - 1], args.gpus_per_node)
            if place.number < needs.nodes:
                some = replace(place, nodes=needs.nodes)
                code = _ranks(folder, some, args, needs.ranks, {PHASE: str(number)})
    except (RunError, PlanError) as problem:
        print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
        return getattr(problem, "exit_code", 1)
    return code


def _next(folder: Path, place: Node, first: int, last: int) -> int:
    """The number of the next phase, on which all nodes agree.

    Raises: RunError, PlanError: the run cannot be read.
    """

    def own() -> int:
        store = Store(folder)
        store.pull()
        return next_of(read_plan(folder / "plan.json"), folder, first, last)

    return agreed(own, node=place.number, nodes=place.nodes, address=place.address, port=place.port)


def _ranks(
    folder: Path, place: Node, args: argparse.Namespace, count: int, phase: Mapping[str, str]
) -> int:
    """Runs the ranks of this node once; returns 0, 1, 2, 3 or 75."""
    address = Store(folder).address
    worker = (sys.executable, "-m", WORKER, address, str(args.root), args.device)
    prefix = f"{args.phase}." if args.phase else ""
    ranks = []
    for local in range(count):
        own = place.place(local, count)
        log = folder / LOGS / f"{prefix}rank-{own.rank}.log"
        _continue(log)
        ranks.append(Rank(worker, own.environment() | dict(phase), own.rank, log))
    return run(ranks, patience=PATIENCE)


def _part(folder: Path, args: argparse.Namespace) -> int:
    """Does the part of preparing with the engine's number; returns 0, 1, 2, 3 or 75."""
    try:
        number = parts.number(os.environ, args.parts)
    except RunError as problem:
        print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
        return problem.exit_code
    address = Store(folder).address
    words = (sys.executable, "-m", parts.MODULE, address, str(args.root), str(args.parts))
    log = folder / LOGS / f"{args.phase}.rank-{number}.log"
    _continue(log)
    return run([Rank(words, number=number, log=log)], patience=PATIENCE)


def _continue(log: Path) -> None:
    """Fetches the log of a rank of a run in a store, before it is opened. If the store cannot be
    reached, the rank says so."""
    if remote := remote_above(log):
        remote.bucket.patient = False
        with suppress(RunError):
            take_log(remote, log)


def take_plan(plan: Path, home: Path, *, record: bool = True) -> Path:
    """Creates the run folder with the plan in it; changes nothing if it already exists.

    All nodes do this with the same bytes, so none depends on when it sees another node's file.

    Args:
        home: the recipe's run folder.
        record: whether this is the node that writes it to a store.

    Returns: the run folder; a variant has its own.
    Raises:
        RunError: the plan cannot be read.
        RunError, Stopped: the folder cannot be written.
        Interrupted: the store cannot be reached.
    """
    try:
        text = gzip.decompress(plan.read_bytes())
        variant = json.loads(text).get("variant")
    except (OSError, EOFError, ValueError, zlib.error) as problem:
        raise RunError(
            f"the plan {plan} cannot be read: {problem}", "launch the run again"
        ) from None
    with disk(home):
        home.mkdir(parents=True, exist_ok=True)
    folder = variant_folder(home, variant) if variant else home
    Store(folder).create()
    path = folder / "plan.json"
    with disk(path):
        if not path.is_file() or path.read_bytes() != text:
            write(path, text)
    if record and (remote := remote_above(path)):
        remote.record(path)
    return folder


class Rank(NamedTuple):
    """A process to start.

    Attributes:
        variables: added to this process's environment.
        number: shown before the lines that it prints, if there are several ranks.
        log: the file that its output is appended to, if any.
    """

    command: Sequence[str]
    variables: Mapping[str, str] = MappingProxyType({})
    number: int = 0
    log: Path | None = None


def run(ranks: Sequence[Rank], *, patience: float) -> int:
    """Runs ranks side by side, logs their output, and forwards signals to them.

    After the first failure the others have `patience` seconds to end by themselves.

    Returns: 0 if all end with 0; 1, 2 or 3 if the first failure ended with it; otherwise 75.
    """
    processes: list[subprocess.Popen[bytes]] = []
    shown = _Shown(ranks)

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        for rank in ranks:
            processes.append(_started(rank))
        return _wait(processes, patience, shown)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        shown()
        for number, handler in before.items():
            signal.signal(number, handler)


def _started(rank: Rank) -> "subprocess.Popen[bytes]":
    """A process that prints to its rank's log, or to this process's output."""
    environment = {**os.environ, **rank.variables}
    if rank.log is None:
        return subprocess.Popen(rank.command, env=environment)
    with disk(rank.log):
        rank.log.parent.mkdir(parents=True, exist_ok=True)
        file = rank.log.open("ab")
    with file:
        return subprocess.Popen(
            rank.command, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


class _Shown:
    """Shows what ranks write to their logs from now on, with their numbers if there are several, so
    that the engine's own log command has it too."""

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self._logs = [RankLog(rank.log, "", rank.number, 0.0) for rank in ranks if rank.log]
        self._places = [log.size() if log.path.exists() else 0 for log in self._logs]
        self._several = len(ranks) > 1

    def __call__(self) -> None:
        for number, log in enumerate(self._logs):
            with suppress(OSError):  # a shared folder may be slow to show a file
                lines, self._places[number] = log.since(self._places[number])
                for line in lines:
                    print(f"rank {log.rank}: {line}" if self._several else line, flush=True)


def _wait(
    processes: Sequence[subprocess.Popen[bytes]], patience: float, shown: Callable[[], None]
) -> int:
    failed: int | None = None
    until = float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        failed = _failed(processes) if failed is None else failed
        if failed is not None and until == float("inf"):
            until = time.monotonic() + patience
        shown()
        time.sleep(0.1)
    failed = _failed(processes) if failed is None else failed
    if failed is None:
        return 0
    return failed if failed in DECIDED else AGAIN


def _failed(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """The exit code of a failed process, if any."""
    return next((p.returncode for p in processes if p.returncode), None)


if __name__ == "__main__":
    sys.exit(main())
