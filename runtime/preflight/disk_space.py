"""How much room a run takes: results stay, checkpoints come and go."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...compiler.as_written import measured
from ...compiler.families.architectures import parameters
from ...compiler.plan.plan import AverageJob, ExportJob, Plan, TrainJob, WeightsJob
from ..errors import RunError
from ..run_folder.outcomes import outcomes
from ..run_folder.recorder import OnEvent
from ..run_folder.store import Store

WEIGHTS = 4
"""Bytes of a parameter: results and exports are float32."""
MOMENTS = 8
"""Bytes of a parameter for both moments of Adam, float32."""
CHECKPOINTS = 3
"""The last two are kept while the next one is written."""
TIGHT = 0.9
"""Of the free space: a run that takes more is warned of."""


def _trained(job: TrainJob) -> int:
    mean = WEIGHTS if job.average else 0
    return parameters(job.model) * (WEIGHTS + MOMENTS + mean)


def _weights(job: AverageJob | ExportJob | WeightsJob) -> int:
    return parameters(job.model) * WEIGHTS


_BYTES: dict[type, Callable[[Any], int]] = {
    TrainJob: _trained,
    AverageJob: _weights,
    ExportJob: _weights,
    WeightsJob: _weights,
}


def result_bytes(job: Any) -> int:
    """What the result of a job with a model takes: of training, weights, moments and a mean."""
    count = _BYTES.get(type(job))
    return count(job) if count else 0


def needed(plan: Plan, store: Store) -> tuple[int, int]:
    """Bytes of the results that are left to make, without those of failed gates and of data; and
    of the checkpoints of the largest job, which are removed at its end."""
    done = outcomes(plan, store) if store.exists() else {}
    left = [
        job
        for job in plan.jobs
        if getattr(job, "extends", None) is None
        and not plan.aside(job)
        and not (job.id in done and done[job.id].state == "finished")
    ]
    trained = [result_bytes(job) for job in left if isinstance(job, TrainJob)]
    return sum(map(result_bytes, left)), CHECKPOINTS * max(trained, default=0)


def require_room(plan: Plan, store: Store, on_event: OnEvent) -> list[RunError]:
    """What is wrong where the disk cannot hold a run; where it is tight, a `warning` event."""
    folder = _existing(store.folder)
    free = shutil.disk_usage(folder).free
    results, checkpoints = needed(plan, store)
    total = results + checkpoints
    said = (
        f"the run needs about {in_bytes(total)} in {store.folder}, {in_bytes(results)} for results "
        f"and {in_bytes(checkpoints)} for checkpoints, and {in_bytes(free)} are free"
    )
    help = "make room, or name a folder on a larger disk with --folder"
    if total > free:
        return [RunError(said, help)]
    if total > TIGHT * free:
        on_event({"event": "warning", "message": f"{said}: this is tight; {help}"})
    return []


def in_bytes(number: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000:
            return f"{measured(number)} {unit}"
        number /= 1024
    return f"{measured(number)} TiB"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
