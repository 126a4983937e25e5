"""Plans again with what tokenizing has counted: for lengths in epochs of data of unknown size."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .common import is_plan
from .screen import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..compiler.plan.plan import Plan
    from ..runtime.preparation.counting import Counted
    from ..runtime.run_folder.recorder import OnEvent

    Do = Callable[[Plan, Path, Path, OnEvent], object]
    Again = Callable[[], Plan | int]

MOST = 3
"""How often data may change while they are counted."""


def counted(
    plan: "Plan", args: Namespace, prepared: "Callable[[Plan, Do], Path]", again: "Again"
) -> "Plan | int":
    """The plan with exact lengths; or the exit code, after a message, if there is none.

    Makes the data, and writes the counts beside the spec. A plan that was given as a file stays as
    it is: a run refuses it if it is not exact.

    Args:
        prepared: processes a plan, and returns the run folder.
        again: plans the same spec again.

    Raises: RunError, Stopped, PlanError.
    """
    if is_plan(Path(args.file)) or getattr(args, "part", None):
        return plan
    from ..runtime.preparation.counting import count
    from ..runtime.run_folder.store import Store

    folder = None
    for _ in range(MOST):
        if not plan.counts:
            return plan
        # The data of the first plan are those of the next: no need to look at each job again.
        found = count(plan, Store(folder)) if folder else []
        if len(found) < len(plan.counts):
            folder = prepared(plan, _prepare)
            found = count(plan, Store(folder))
        if all(each.exact and numbers == each.numbers for each, numbers in found):
            return plan
        _keep(found, args)
        planned = again()
        if isinstance(planned, int):
            return planned
        plan = planned
    return plan


def _prepare(plan: "Plan", folder: Path, root: Path, on_event: "OnEvent") -> None:
    from ..runtime.gang import execute

    execute(plan, folder, root, on_event, prepare=True)


def _keep(found: "Counted", args: Namespace) -> None:
    """Writes counts beside the spec, and says so.

    Raises: RunError: the file cannot be written.
    """
    from ..compiler.files.counts_file import counts_path, write_counts
    from ..runtime.errors import RunError

    path = counts_path(Path(args.file))
    more = {
        each.identity: {
            "stage": each.stage,
            "dataset": each.dataset,
            "unit": each.unit,
            "numbers": numbers,
        }
        for each, numbers in found
    }
    try:
        write_counts(path, more)
    except OSError as problem:
        raise RunError(
            f"the counts of the data cannot be written to {path}: {problem.strerror or problem}",
            "make the folder of the spec writable, or declare the sizes: `tokens = …` in the data "
            "sets, `pairs = …` for preferences",
        ) from None
    if not args.json:
        for each, numbers in found:
            epochs = f"{sum(numbers) / len(numbers):,.10g} {each.unit} in an epoch"
            say(
                f"counted: `{each.dataset}` has {epochs} of `{each.stage}` (in {path}); the plan "
                "is exact now",
                rest="  ",
                to=sys.stderr,
            )
