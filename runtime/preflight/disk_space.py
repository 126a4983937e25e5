"""The disk space that a run needs: results stay, checkpoints are temporary."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...compiler.as_written import in_bytes
from ...compiler.families.architectures import parameters
from ...compiler.plan.checkpoints import WEIGHTS, at_once, size, staying
from ...compiler.plan.plan import AverageJob, ExportJob, Plan, TrainJob, WeightsJob
from ..errors import RunError
from ..run_folder.outcomes import outcomes
from ..run_folder.recorder import OnEvent
from ..run_folder.store import Store

TIGHT = 0.9
"""The share of the free space above which a run gets a warning."""


def _weights(job: AverageJob | ExportJob | WeightsJob) -> int:
    return parameters(job.model) * WEIGHTS


_BYTES: dict[type, Callable[[Any], int]] = {
    TrainJob: size,
    AverageJob: _weights,
    ExportJob: lambda job: _weights(job) // (2 if job.dtype == "bf16" else 1),
    WeightsJob: _weights,
}


def result_bytes(job: Any) -> int:
    """The size of the result of a job with a model; for training: weights, moments and a mean."""
    count = _BYTES.get(type(job))
    return count(job) if count else 0


def needed(plan: Plan, store: Store) -> tuple[int, int]:
    """Bytes of the remaining results, except those of failed gates and data; and the largest size
    of one job's checkpoints, which are removed at its end."""
    done = outcomes(plan, store) if store.exists() else {}
    left = [
        job
        for job in plan.jobs
        if getattr(job, "extends", None) is None
        and not plan.aside(job)
        and not (job.id in done and done[job.id].state == "finished")
    ]
    inside = [at_once(job) * size(job) for job in left if isinstance(job, TrainJob)]
    stay = sum(staying(job) * size(job) for job in left if isinstance(job, TrainJob))
    return sum(map(result_bytes, left)) + stay, max(inside, default=0)


def require_room(plan: Plan, store: Store, on_event: OnEvent) -> list[RunError]:
    """An error if the disk cannot hold the run; a `warning` event if space is tight."""
    folder = _existing(store.folder)
    free = shutil.disk_usage(folder).free
    results, checkpoints = needed(plan, store)
    total = results + checkpoints
    said = (
        f"the run needs about {in_bytes(total)} in {store.folder}, {in_bytes(results)} for "
        f"results and {in_bytes(checkpoints)} for checkpoints, but only {in_bytes(free)} are free"
    )
    help = "free some space, or choose a folder on a larger disk with --folder"
    if total > free:
        return [RunError(said, help)]
    if total > TIGHT * free:
        on_event({"event": "warning", "message": f"{said}: this is tight; {help}"})
    return []


def _existing(folder: Path) -> Path:
    """The folder, or the nearest existing one above it."""
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
