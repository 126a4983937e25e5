"""What is on the fullest GPU of each job: the rows of the page's bars and table."""

from collections.abc import Iterator
from typing import Any

from ..compiler.plan.plan import ForwardJob, Plan, WritingJob
from ..compiler.values import Generation

Bytes = dict[str, int]


def memory(plan: Plan) -> list[dict[str, Any]]:
    """Jobs on known GPUs: `name`, `parts` (what memory holds → bytes; the same for all), `has`.

    Jobs with the same memory, of which a recipe with rounds has hundreds, share a row; its name has
    the first and the last of them. What gates may add is left out.
    """
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, parts, has in _jobs(plan):
        alike.setdefault((tuple(parts.items()), has), []).append(name)
    every = dict.fromkeys(part for parts, _ in alike for part, _ in parts)
    return [
        {
            "name": names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}",
            "parts": {part: dict(parts).get(part, 0) for part in every},
            "has": has,
        }
        for (parts, has), names in alike.items()
    ]


def _jobs(plan: Plan) -> Iterator[tuple[str, Bytes, int | None]]:
    """The bytes of each job, those that train first."""
    for job in plan.trained():
        if job.cost.memory is not None:
            yield job.id, job.cost.memory, job.cost.gpu_memory
    for job in plan.jobs:
        if job.extends or plan.aside(job):
            continue
        if isinstance(job, ForwardJob) and job.reading is not None:
            yield job.id, job.reading.memory, job.reading.gpu_memory
        elif isinstance(job, WritingJob) and job.generation is not None:
            yield job.id, _written(job.generation), job.generation.gpu_memory


def _written(of: Generation) -> Bytes:
    """The memory of a model that generates, under training's names where it has them."""
    cache = max(of.at_a_time, 1) * of.memory["sequence"]
    return {"parameters": of.memory["weights"], "activations": of.memory["work"], "cache": cache}
