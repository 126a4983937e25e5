"""Totals over the jobs that train."""

from collections.abc import Sequence
from math import fsum
from typing import Any

from ..costs.digits import digits
from .plan import Totals, TrainJob


def totals(jobs: Sequence[Any]) -> Totals:
    """The sums over the jobs that train, except those that run only after a failed gate."""
    trained = [job for job in jobs if isinstance(job, TrainJob) and not job.extends]

    def total(name: str) -> float | None:
        values = [getattr(job.cost, name) for job in trained]
        if not values or any(value is None for value in values):
            return None
        return digits(fsum(values))

    return Totals(
        tokens=sum(job.tokens for job in trained),
        steps=sum(job.steps for job in trained),
        flops=sum(job.cost.flops for job in trained),
        seconds=total("seconds"),
        expected_seconds=_expected(trained),
        gpu_hours=total("gpu_hours"),
        energy_kwh=total("energy_kwh"),
        price=total("price"),
    )


def _expected(trained: Sequence[TrainJob]) -> float | None:
    """Seconds with failures; for clusters without failure data, seconds without them."""
    costs = [job.cost for job in trained]
    if all(cost.expected_seconds is None for cost in costs):
        return None
    times = [cost.expected_seconds or cost.seconds for cost in costs]
    return None if None in times else digits(fsum(time or 0.0 for time in times))
