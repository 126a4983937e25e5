"""Runs part of a plan in a run folder; the part's inputs must exist."""

from collections.abc import Sequence
from typing import Any

from ..compiler.plan.part import beside, needed, options
from ..compiler.plan.plan import Plan
from .errors import RunError
from .run_folder.outcomes import results
from .run_folder.store import Store


def require_before(plan: Plan, store: Store) -> None:
    """Raises: RunError: results that the plan's part starts from are not in the run folder."""
    wanted = needed(plan)
    if not wanted or beside(plan):  # parts of a sweep are queued before those that they wait for
        return
    there = results(plan, store) if store.exists() else {}
    missing = [job for job in wanted if job.id not in there]
    if missing:
        raise lacking(plan, missing)


def lacking(plan: Plan, jobs: Sequence[Any]) -> RunError:
    """The error if results that a plan's part starts from are missing.

    Args:
        jobs: the jobs that make them, at least one.
    """
    named = ", ".join(job.id for job in jobs)
    stages = list(dict.fromkeys(job.stage for job in jobs if job.stage))
    first = f" --until {stages[-1]}" if stages else ""
    if beside(plan):
        message = f"the part of {plan.variant} begins with {named}, which another part has not made"
        return RunError(message, "launch the whole sweep again: what is done stays")
    what = "is not there" if len(jobs) == 1 else "are not there"
    result = "the result" if len(jobs) == 1 else "the results"
    return RunError(
        f"`{options(plan).strip()}` begins with {result} of {named}, which {what}",
        f"make the missing results first: etude run SPEC{first}",
    )
