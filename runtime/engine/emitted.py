"""Components for emitted torchtitan configurations: a run's data and rates, as in etude's jobs."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer

from ...compiler.as_written import counted
from ...compiler.plan.plan import Plan, TrainJob
from ...compiler.plan.plan_schema import read_plan
from ...compiler.schedule.timeline import Timeline
from ..errors import RunError
from ..run_folder.outcomes import results
from ..run_folder.store import Store
from .loader import Batch, Loader
from .records.dialogs import DialogLoader
from .train import dataloader
from .updates.lr import PlannedLR, PlannedSchedulers

PREPARE = "make the data with `etude prepare SPEC`, on any machine, and name its run folder"


def converted(model: Any, *converters: Any) -> Any:
    """A model's configuration, with its layers converted by torchtitan's converters in turn."""
    for converter in converters:
        model = converter.build().convert(model)
    return model


class RunData(BaseDataLoader):
    """Yields the batches of a train job from the data sets in a run folder.

    The sequences are those of etude's own run, in the same order, and labels of dialogs are masked
    in the same way. torchtitan takes as many at a time as its configuration says.

    Raises:
        RunError: the run folder has another plan, or does not have the job's data yet.
        DataError: the data are damaged.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        run: str
        """The run folder of the recipe, or of the variant."""
        job: str
        """The job's name in the plan."""
        key: str
        """The job's key, which checks that the plan is the one that was emitted."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        run = Path(config.run)
        plan, self._job = _find(run, config.job, config.key)
        if (given := keywords.get("seq_len", self._job.seq_len)) != self._job.seq_len:
            raise RunError(
                f"training.seq_len is {given}, but the job {config.job} reads sequences of "
                f"{counted(self._job.seq_len, 'tokens')}",
                "change the recipe and emit it again",
            )
        self._loader = _loader(run, plan, self._job, keywords)
        self._micro_batch = keywords["dp_world_size"] * keywords["local_batch_size"]
        self._given = 0

    def __iter__(self) -> Iterator[Batch]:
        first, timeline = self._job.first_step, self._loader.timeline
        before = [
            timeline.sequences_before(step) // self._micro_batch
            for step in range(first, first + self._job.steps + 1)
        ]
        step = bisect_right(before, self._given) - 1
        self._loader.steps = step
        within = self._given - before[step]
        for batch in islice(self._loader, within, within + before[-1] - self._given):
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Micro-batches handed out: torchtitan's steps may end within those of the recipe."""
        return {"micro_batches": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._given = state_dict["micro_batches"]


class RunRates(PlannedSchedulers):
    """The recipe's learning rate: each step of torchtitan has the rate of the sequences it reads.

    The state is the number of steps taken, and the job: a job that begins with another's checkpoint
    has taken none.

    Raises: RunError: as `RunData`.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        run: str
        """As in `RunData`, like the next two."""
        job: str
        key: str
        batch: int
        """Sequences per batch of torchtitan."""

        def build(self, *, optimizers: OptimizersContainer, training_steps: int) -> "RunRates":
            return RunRates(self, optimizers)

    def __init__(self, config: Config, optimizers: OptimizersContainer) -> None:
        _, job = _find(Path(config.run), config.job, config.key)
        timeline = Timeline.of(job)
        steps = range(job.first_step, job.first_step + job.steps)
        before = [timeline.sequences_before(step) for step in steps]

        def lr(taken: int) -> float:
            return timeline.lr(steps[bisect_right(before, taken * config.batch) - 1])

        self._key = config.key
        self.schedulers = [PlannedLR(optimizer, lr) for optimizer in optimizers]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "job": self._key}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        same = state_dict["job"] == self._key
        super().load_state_dict({"last_epoch": state_dict["last_epoch"] if same else 0})


def _find(run: Path, name: str, key: str) -> tuple[Plan, TrainJob]:
    """The plan in a run folder, and a job of it."""
    if not (run / "plan.json").is_file():
        raise RunError(f"{run} is not a run folder", PREPARE)
    plan = read_plan(run / "plan.json")
    job = next((j for j in plan.jobs if isinstance(j, TrainJob) and j.key == key), None)
    if job is None:
        raise RunError(
            f"the plan in {run} has no job {name} as it was when this configuration was emitted",
            "emit the configuration again from the spec, and prepare its data again",
        )
    return plan, job


def _loader(run: Path, plan: Plan, job: TrainJob, keywords: dict[str, Any]) -> Loader:
    made = results(plan, Store(run))
    folders = {}
    for source in job.data:
        needed = _name(plan, job.inputs[f"data:{source}"])
        if needed not in made:
            raise RunError(
                f"{run} does not have the data of {job.id} yet: {needed} is missing", PREPARE
            )
        folders[f"data:{source}"] = made[needed]
    first = {source: window.first_token for source, window in job.data.items()}
    config = dataloader(job, folders, run, first)
    if isinstance(config, DialogLoader.Config):
        # All in the order of the recipe, and as long as torchtitan expects them.
        config = replace(config, multiple=None)
    return config.build(**keywords)


def _name(plan: Plan, key: str) -> str:
    return next(job.id for job in plan.jobs if job.key == key)
