"""The disk space that a run takes: results stay, checkpoints come and go."""

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
"""Of the free space: a run that takes more is warned of."""


def _weights(job: AverageJob | ExportJob | WeightsJob) -> int:
    return parameters(job.model) * WEIGHTS


_BYTES: dict[type, Callable[[Any], int]] = {
    TrainJob: size,
    AverageJob: _weights,
    ExportJob: lambda job: _weights(job) // (2 if job.dtype == "bf16" else 1),
    WeightsJob: _weights,
}


def result_bytes(job: Any) -> int:
    """What the result of a job with a model takes: of training, weights, moments and a mean."""
    count = _BYTES.get(type(job))
    return count(job) if count else 0


def needed(plan: Plan, store: Store) -> tuple[int, int]:
    """Bytes of the results that are left to make, without those of failed gates and of data; and
    of the checkpoints inside the job that has most, which are removed at its end."""
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
    """What is wrong where the disk cannot hold a run; where it is tight, a `warning` event."""
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
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
