"""`etude logs`: shows the output of a run's ranks."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from .common import open_run, problem
from .screen import clean, say

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..runtime.run_folder.logs import RankLog
    from ..runtime.run_folder.store import Store

LINES = 20
MOST = 8
"""If there are more ranks and none is given, only the first is shown."""
POLL_SECONDS = 0.5


def arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of `etude logs` to its parser."""
    parser.add_argument("folder", metavar="RUN", help="the run folder")
    parser.add_argument("--rank", type=int, metavar="N", help="show only this rank, counted from 0")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--phase",
        metavar="PHASE",
        help="show this phase: its number, or a name such as 2-gang (default: newest)",
    )
    which.add_argument("--job", metavar="JOB", help="show the phase that has this job")
    parser.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="show new lines as they come, until the run ends",
    )
    parser.add_argument(
        "-n",
        "--lines",
        type=int,
        default=LINES,
        metavar="LINES",
        help=f"lines per rank (default: {LINES})",
    )


def run(args: Namespace) -> int:
    from ..runtime.run_folder.logs import of_phase, rank_logs

    if args.lines < 0 or (args.rank is not None and args.rank < 0):
        problem("--lines and --rank are numbers from 0 on")
        return 2
    opened = open_run(args.folder)
    if opened is None:
        return 1
    plan, store = opened
    found = rank_logs(store.folder)
    phase = _phase(args, plan, found)
    if phase is None:
        return 2
    shown = [each for each in of_phase(found, phase) if args.rank in (None, each.rank)]
    if not shown and not args.follow:
        return _nothing(args, found, phase)
    if args.rank is None and len(shown) > MOST:
        text = f"{len(shown)} ranks have logs; this is rank {shown[0].rank}, --rank N shows another"
        say(text, to=sys.stderr)
        shown = shown[:1]
    if args.follow:
        _follow(shown, store, plan, phase, args)
    else:
        _show(shown, args.lines)
    return 0


def _phase(args: Namespace, plan: "Plan", found: "Sequence[RankLog]") -> str | None:
    """The requested phase's name, "" for runs without phases; None, after a message, if unknown."""
    names = [phase.name for phase in plan.phases]
    if args.job:
        phase = next((phase for phase in plan.phases if args.job in phase.jobs), None)
        if phase is None:
            problem(f"the plan has no job {args.job}", f"etude status {args.folder} lists them")
            return None
        wanted = phase.name
    elif args.phase:
        fits = [n for n in names if args.phase in (n, n.partition("-")[0], n.partition("-")[2])]
        if not fits:
            problem(f"the plan has no phase {args.phase}", f"the phases are {', '.join(names)}")
            return None
        with_logs = [name for name in fits if any(log.phase == name for log in found)]
        wanted = (with_logs or fits)[-1]
    else:
        return max(found, key=lambda log: log.written).phase if found else ""
    named = {log.phase for log in found}
    # A run on this machine keeps one log per rank, for all phases.
    return next((name for name in (wanted, _first_with(plan, wanted)) if name in named), "")


def _first_with(plan: "Plan", phase: str) -> str:
    """The first of the phases that share machines, and so logs, with a phase."""
    from ..runtime.launchers.machines import allocations

    found = allocations(plan, plan.phases, None)
    return next(each.name for each in found if phase in (one.name for one in each.phases))


def _nothing(args: Namespace, found: "Sequence[RankLog]", phase: str) -> int:
    ranks = sorted({log.rank for log in found if log.phase == phase and log.rank is not None})
    if ranks and args.rank is not None:
        problem(f"there is no log of rank {args.rank}", f"the ranks are 0 to {ranks[-1]}")
    else:
        problem(f"nothing has been printed in {args.folder} yet", "--follow waits for it")
    return 1


def _show(shown: "Sequence[RankLog]", lines: int) -> None:
    for log in shown:
        for line in log.last(lines):
            _line(log, line, several=len(shown) > 1)


def _line(log: "RankLog", line: str, *, several: bool) -> None:
    name = "log" if log.rank is None else f"rank {log.rank}"
    print(f"{name}: {clean(line)}" if several else clean(line), flush=True)


def _follow(
    shown: "Sequence[RankLog]", store: "Store", plan: "Plan", phase: str, args: Namespace
) -> None:
    """Shows new output until the run has ended, including the last lines."""
    from ..runtime.run_folder.logs import of_phase, rank_logs
    from ..runtime.run_folder.progress import progress
    from ..runtime.stores.views import look_again

    places: dict[Path, int] = {}
    for log in shown:
        places[log.path] = log.size()
    _show(shown, args.lines)
    while True:
        look_again(store.folder)
        ended = progress(plan, store).state in ("done", "stopped", "dead")
        found = rank_logs(store.folder)
        if not args.phase and not args.job and found:
            phase = max(found, key=lambda log: log.written).phase
        now = [log for log in of_phase(found, phase) if args.rank in (None, log.rank)]
        if args.rank is None and len(now) > MOST:
            now = now[:1]
        for log in now:
            lines, places[log.path] = log.since(places.get(log.path, 0))
            for line in lines:
                _line(log, line, several=len(now) > 1)
        if ended:
            return
        sleep(POLL_SECONDS)
