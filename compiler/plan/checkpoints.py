"""The checkpoints inside a train job: their expected number and the space they take."""

from fractions import Fraction
from math import lcm

from ...spec.quantity import Quantity, counted
from ...spec.schema import recipe as r
from ...spec.schema.number_kinds import EVERY, LAST, SECONDS, Kept
from ..families.architectures import parameters
from ..values import ADAFACTOR, LION, Profile, Saving
from .plan import TrainJob

WEIGHTS = 4
"""Bytes per parameter: weights are kept in float32."""
MOMENTS = {ADAFACTOR: 0, LION: 4}
"""Bytes per parameter for what an optimizer keeps in float32; other than here, two moments:
Adafactor's numbers for rows and columns are few."""
FOR_ROLLBACKS = 4
"""Checkpoints that rollbacks keep besides the newest (`engine/checkpoints/checkpoint.py`)."""
OTHERWISE = 10
"""Checkpoints per job if its time is unknown and an interval in steps is needed."""


def saving(spec: r.Training) -> Saving:
    """When a job's checkpoints are written, and which are kept."""
    every, keep = spec.checkpoint or EVERY, spec.keep or Kept(LAST)
    by_steps = every.unit == "steps"
    return Saving(
        every=int(every.value) if by_steps else None,
        seconds=None if by_steps else float(every.value * SECONDS[every.unit]),
        last=keep.last,
        marks=keep.every,
    )


def in_words(of: Saving) -> dict[str, str]:
    """The statements `checkpoint` and `keep`, without their first words."""
    every = Quantity(Fraction(of.every or 0), "steps")
    if of.every is None:
        minutes = Fraction(of.seconds or 0) / 60
        every = Quantity(minutes, "min") if minutes % 60 else Quantity(minutes / 60, "h")
    keep = "all" if of.last is None else f"last {of.last}"
    if of.marks is not None:
        keep = f"every {counted(of.marks, 'steps')}, and the {keep}"
    return {"checkpoint": f"every {every}", "keep": keep}


def profiled_in_words(of: Profile) -> str:
    """The steps of a profile."""
    if of.to_step == of.from_step + 1:
        return f"step {of.from_step:,}"
    return f"steps {of.from_step:,} to {of.to_step - 1:,}"


def size(job: TrainJob) -> int:
    """Bytes of a checkpoint: weights, moments, and the mean if the job averages."""
    mean = WEIGHTS if job.average else 0
    groups = job.torchtitan["optimizer"]["param_groups"]
    moments = max(MOMENTS.get(group.get("optimizer_name"), 8) for group in groups)
    return parameters(job.model) * (WEIGHTS + moments + mean)


def inside(job: TrainJob) -> int | None:
    """Checkpoints inside the job, not counting its end; None if unknown, because they are timed and
    the job's time is unknown."""
    last, every, back = job.steps - 1, job.saving.every, back_to(job)
    for_rollbacks = last // back if back else 0
    if every is not None:
        both = last // lcm(every, back) if back else 0
        return last // every + for_rollbacks - both
    seconds = job.cost.seconds
    if seconds is None or not job.saving.seconds:
        return None
    return min(int(seconds / job.saving.seconds) + for_rollbacks, last)


def back_to(job: TrainJob) -> int:
    """Steps of the job between the checkpoints that rollbacks need; 0 if there are none."""
    return job.spikes.back if job.spikes else 0


def steps_between(job: TrainJob) -> int:
    """Steps between two checkpoints, for programs that count steps: from the estimated time, and at
    most the whole job."""
    if job.saving.every is not None:
        return job.saving.every
    seconds = job.cost.seconds
    if seconds and job.saving.seconds:
        return min(max(int(job.saving.seconds * job.steps / seconds), 1), job.steps)
    return max(-(-job.steps // OTHERWISE), 1)


def staying(job: TrainJob) -> int:
    """Checkpoints that remain when the job is done: they become part of its result."""
    if job.saving.last is None:
        written = inside(job)
        return OTHERWISE if written is None else written
    if job.saving.marks is None:
        return 0
    first, last = job.first_step, job.first_step + job.steps - 1
    return last // job.saving.marks - first // job.saving.marks


def at_once(job: TrainJob) -> int:
    """The most temporary checkpoints on disk at once: the newest ones, one that is being written,
    those for rollbacks, and the best."""
    best = int(job.choice is not None and job.choice.best)
    if job.saving.last is None:
        return 0
    written = inside(job)
    most = job.saving.last + 1 + (FOR_ROLLBACKS if back_to(job) else 0)
    return (most if written is None else min(most, written)) + best
