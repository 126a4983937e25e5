"""How far a run has come, from what it tells: the number of its job, and the time that is left."""

from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

from ..compiler.plan.plan import Plan, TrainJob
from ..runtime.run_folder.progress import RECENT, Progress, Training, left
from ..spec.quantity import counted


class Way:
    """Follows the events of a run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._extensions: set[str] = set()
        self._job: Any = None
        self._last: Mapping[str, Any] | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT)
        """When each of the newest steps came, and its sequences."""

    def note(self, event: Mapping[str, Any]) -> None:
        """Takes an event."""
        if event["event"] == "started":
            self._job = next((job for job in self._plan.jobs if job.id == event["job"]), None)
            if self._job is not None and self._job.extends is not None:
                self._extensions.add(self._job.id)
            self._last = None
            self._steps.clear()
        elif event["event"] == "step":
            self._last = event
            self._steps.append((monotonic(), event["sequences"]))

    def number(self) -> str:
        """`job 3 of 7`, of the jobs that every run does and those extensions that have begun."""
        jobs = self._jobs()
        return f"job {jobs.index(self._job) + 1} of {len(jobs)}" if self._job in jobs else ""

    def seconds(self) -> tuple[float, float] | None:
        """Seconds left of training in all and in this job; None if it is not known."""
        if self._last is None or len(self._steps) < 2:
            return None
        pace = self._steps[-1][0] - self._steps[0][0]
        pace /= sum(sequences for _, sequences in [*self._steps][1:])
        job = self._job
        done = self._last["step"] - job.first_step + 1
        training = Training(done, job.steps, None, pace, self._last, None)
        jobs = self._jobs()
        whole = left(jobs[jobs.index(job) :], training)
        own = left([job], training)
        return None if whole is None or own is None else (max(whole, own), own)

    def _jobs(self) -> list[Any]:
        asked = (job for job in self._plan.jobs if not self._plan.aside(job))
        return [job for job in asked if job.extends is None or job.id in self._extensions]


def resumed(plan: Plan, found: Progress) -> str | None:
    """What a run that has begun before continues with; None if it has not begun."""
    if found.finished == 0 and not found.training:
        return None
    if found.job is None:
        return None
    saved = found.training.checkpoint if found.training else None
    job = next((each for each in plan.jobs if each.id == found.job), None)
    if isinstance(job, TrainJob) and saved:
        at = f"{found.job} after step {saved.step:,} of {job.steps:,}"
    elif found.finished:
        at = f"{found.job} from its beginning"
    else:
        return None
    return f"continuing: {found.finished} of {counted(found.jobs, 'jobs')} done; {at}"
