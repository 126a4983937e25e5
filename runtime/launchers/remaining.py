"""Which phases of a run are left.

    python -m etude.runtime.launchers.remaining RUN_FOLDER FIRST LAST [GPUS_PER_NODE]

prints a line for each phase from the first of FIRST to LAST that is not done: its number, how many
nodes it uses, and the ranks of each. A job that does several phases continues there when it is
started again.
"""

import sys
from pathlib import Path

from ...compiler.plan.phases import phases
from ...compiler.plan.plan import Plan
from ...compiler.plan.plan_schema import PlanError, read_plan
from ...compiler.values import Phase
from ..errors import RunError
from ..run_folder.outcomes import outcomes
from ..run_folder.store import Store
from ..run_folder.variant_folders import folder_at
from .machines import machines

MODULE = "etude.runtime.launchers.remaining"


def left(plan: Plan, folder: Path) -> list[Phase]:
    """The phases of a plan from the first unfinished one on."""
    found = list(phases(plan))
    finished = _finished(plan, folder)
    done = [_is_done(phase, plan, finished) for phase in found]
    if all(done) and not any(phase.conditional for phase in found):
        return []
    while len(found) > 1 and _is_done(found[0], plan, finished) and (not found[0].conditional):
        found.pop(0)
    return found


def next_of(plan: Plan, folder: Path, first: int, last: int) -> int:
    """The number of the first phase from `first` to `last` that is not done, or `last` + 1. A phase
    that may have nothing to do is not done: its ranks find out.

    Args:
        folder: the run folder.
    """
    finished = _finished(plan, folder)
    for phase in phases(plan)[first - 1 : last]:
        if phase.conditional or not _is_done(phase, plan, finished):
            return phase.number
    return last + 1


def _finished(plan: Plan, folder: Path) -> set[str]:
    store = Store(folder)
    done = outcomes(plan, store) if store.exists() else {}
    return {job for job, outcome in done.items() if outcome.state == "finished"}


def _is_done(phase: Phase, plan: Plan, finished: set[str]) -> bool:
    aside = {job.id for job in plan.jobs if job.extends}
    return finished >= set(phase.jobs) - aside


def main(address: str, first: int, last: int, gpus_per_node: int | None = None) -> int:
    """Prints the lines; returns 0, or the exit code of what is wrong with the run folder.

    Args:
        address: the run folder: a path, or a URL of a store.
    """
    try:
        folder = folder_at(address)
        store = Store(folder)
        store.pull()
        store.fetch_small("plan.json")
        plan = read_plan(folder / "plan.json")
        for phase in phases(plan)[next_of(plan, folder, first, last) - 1 : last]:
            needs = machines(plan, phase, gpus_per_node)
            print(phase.number, needs.nodes, needs.ranks)
    except (RunError, PlanError) as problem:
        print(f"error: {problem.message}\n  = help: {problem.help}", file=sys.stderr)
        return getattr(problem, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
