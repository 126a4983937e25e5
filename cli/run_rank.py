"""`etude run` as one rank of a gang: under torchrun, in an allocation of Slurm, in a pod."""

import sys
from argparse import Namespace
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import problem

if TYPE_CHECKING:
    from ..compiler.plan.plan import Plan
    from ..compiler.values import Resources
    from ..runtime.errors import RunError
    from ..runtime.launchers.allocation import Place


def run(args: Namespace, place: "Place") -> int:
    """Runs a spec or a plan together with the other ranks; only rank 0 reads it and prints.

    Returns: the exit code of this rank.
    """
    from ..runtime.errors import RunError
    from ..runtime.gang import join_in
    from ..runtime.ranks import Ranks

    try:
        ranks = Ranks(place, _teller(args))
    except RunError as reason:
        problem(reason.message, reason.help)
        return reason.exit_code
    try:
        if place.rank == 0:
            return _lead(args, ranks)
        join_in(ranks)
    except Exception as reason:
        ranks.fail(reason)
    return 0


def _teller(args: Namespace) -> Any:
    """Returns a function that reports what ends the gang, even if standard error is redirected."""
    import os

    from .work import command, failed

    errors = os.fdopen(os.dup(2), "w")

    def tell(reason: "RunError") -> None:
        with redirect_stderr(errors):
            failed(reason, as_json=args.json, again=command(args))
            errors.flush()

    return tell


def _lead(args: Namespace, ranks: Any) -> int:
    """Rank 0's part: reads the spec, leads the others, and reports the outcome.

    Raises: RunError, Stopped.
    """
    from ..compiler.plan.plan_schema import PlanError
    from ..runtime.errors import RunError
    from ..runtime.gang import lead
    from .work import done, execute, plan_of

    try:
        plan = plan_of(args, ranks.world_size)
    except PlanError as reason:
        raise RunError(reason.message, reason.help) from None
    if isinstance(plan, int):  # already reported
        ranks.leave(plan)
        return plan
    needs: list[Resources | None] = []

    def leading(plan: "Plan", folder: Path, root: Path, on_event: Any) -> None:
        needs.append(lead(plan, folder, root, on_event, ranks=ranks))

    folder = execute(plan, args, leading)
    wanted = needs[0]
    if wanted is None and not args.json:
        print(done(plan, folder))
    elif wanted and not args.json:
        print(
            f"these {ranks.world_size} ranks are done: the next job needs {wanted.world_size} "
            f"({wanted.device}); start the same command on that many"
        )
    sys.stdout.flush()
    return 0
