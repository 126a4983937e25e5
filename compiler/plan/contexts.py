"""The longest sequence that a job's model knows, because it or a model that it was made from was
trained on it."""

from collections.abc import Iterable, Mapping
from typing import Any

from .plan import AverageJob, BestJob, TrainJob, WeightsJob


def context_of(job: Any, known: Mapping[str, int]) -> int | None:
    """The context of a job's model, in tokens; None if the job makes no model.

    Args:
        known: key → context, of the jobs before this one.
    """
    before = [known[key] for key in job.inputs.values() if key in known]
    if isinstance(job, TrainJob):
        return max([job.seq_len, *before])
    if isinstance(job, WeightsJob):
        return job.model.context
    if isinstance(job, BestJob):
        # Which one will be chosen is unknown, but each has seen at least this much.
        return min(before)
    return max(before) if isinstance(job, AverageJob) else None


def contexts_of(jobs: Iterable[Any]) -> dict[str, int]:
    """Key → context, for jobs that make models, in an order in which they can run."""
    known: dict[str, int] = {}
    for job in jobs:
        found = context_of(job, known)
        if found is not None:
            known[job.key] = found
    return known
