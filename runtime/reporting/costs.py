"""What a run has taken, beside what was planned."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any

from ...compiler.plan.plan import Plan, TrainJob
from ..run_folder.outcomes import Outcome, steps
from ..run_folder.store import EVENTS, Store
from .stretches import Stretch, stretches


def at_work(plan: Plan, store: Store) -> list[Stretch]:
    """When this run was at work on the jobs of the plan, in order; without what it did of earlier
    plans, whose jobs may have had the same names.

    Raises: RunError: the journal is damaged.
    """
    keys = {job.id: job.key for job in plan.jobs}
    begun: dict[str, list[tuple[float, str]]] = {}
    for event in store.events():
        if event["event"] == "started":
            planned = (event["detail"] or {}).get("plan", "")
            begun.setdefault(event["job"], []).append((event["time"], planned))
    found = []
    for each in stretches(store.folder / EVENTS):
        # The journal has a start just before the events do.
        told = begun.get(each.job, [])
        number = bisect_right([time for time, _ in told], each.began)
        if number and told[number - 1][1] == keys.get(each.job):
            found.append(each)
    return found


def costs(
    plan: Plan, store: Store, begun: Mapping[str, Outcome], starts: Sequence[Stretch]
) -> list[dict[str, Any]]:
    """What each stage was planned to take, and what its jobs have taken, restarts included.

    Returns: a row a stage: `stage`, and `tokens`, `steps`, `hours`, `gpu_hours` and `price`, each
    also as `planned_…`; None if unknown. Hours are those of jobs that train. The price is that of
    a GPU-hour in the plan.
    """
    stages: dict[str, list[TrainJob]] = {}
    for job in plan.jobs:
        if isinstance(job, TrainJob) and not plan.aside(job):
            stages.setdefault(str(job.stage), []).append(job)
    found = []
    for stage, jobs in stages.items():
        asked = [job for job in jobs if job.extends is None]
        took = [_took(store, job, begun[job.id], starts) for job in jobs if job.id in begun]
        whole = _sum([job.cost.gpu_hours for job in asked])
        price = _sum([job.cost.price for job in asked])
        # A plan has GPU-hours if its device is known; a CPU's are not counted.
        gpus = None if whole is None else fsum(each["gpu_hours"] for each in took)
        seconds = _sum([job.cost.seconds for job in asked])
        found.append(
            {
                "stage": stage,
                "planned_tokens": sum(job.tokens for job in asked),
                "tokens": sum(each["tokens"] for each in took),
                "planned_steps": sum(job.steps for job in asked),
                "steps": sum(each["steps"] for each in took),
                "planned_hours": None if seconds is None else seconds / 3600,
                "hours": fsum(each["hours"] for each in took),
                "planned_gpu_hours": whole,
                "gpu_hours": gpus,
                "planned_price": price,
                "price": price * gpus / whole if price is not None and whole and gpus else None,
            }
        )
    return found


def _took(
    store: Store, job: TrainJob, outcome: Outcome, starts: Sequence[Stretch]
) -> dict[str, Any]:
    """The tokens, steps, hours and GPU-hours of a job: by the clock of this run, or if another run
    has done it, by its steps."""
    lines = steps(store, job.id, outcome)
    own = [each for each in starts if each.job == job.id]
    seconds = fsum(each.ended - each.began for each in own)
    if not own:
        seconds = fsum(line.get("seconds", 0.0) for line in lines)
    return {
        "tokens": max((line.get("tokens", 0) for line in lines), default=job.first_token)
        - job.first_token,
        "steps": len(lines),
        "hours": seconds / 3600,
        "gpu_hours": seconds / 3600 * job.resources.world_size,
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fsum(known) if known and len(known) == len(values) else None
