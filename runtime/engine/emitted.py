"""What emitted configurations of torchtitan read: the data of a run, as etude's own jobs do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchtitan.components.dataloader import BaseDataLoader

from ...compiler.plan import Plan, TrainJob
from ...compiler.schema import read_plan
from ..errors import RunError
from ..outcomes import results
from ..store import Store
from .loader import Batch, Loader
from .train import dataloader

PREPARE = "let `etude run SPEC --prepare` make the data, on any machine, and name its run folder"


class RunData(BaseDataLoader):
    """Yields the batches of a train job from the data sets in a run folder.

    The sequences are those of etude's own run, in the same order; labels of dialogs are masked as
    there. Torchtitan takes as many at a time as its configuration says.

    Raises:
        RunError: the run folder has another plan, or not yet the job's data.
        DataError: the data are damaged.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        run: str
        """The run folder: that of the recipe, or of the variant."""
        job: str
        """The job's name in the plan."""
        key: str
        """The job's key: with it the plan is the one that was emitted."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        self._loader = _loader(Path(config.run), config.job, config.key, keywords)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)

    def state_dict(self) -> dict[str, int]:
        return self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._loader.load_state_dict(state_dict)


def _loader(run: Path, name: str, key: str, keywords: dict[str, Any]) -> Loader:
    if not (run / "plan.json").is_file():
        raise RunError(f"{run} is no run folder", PREPARE)
    plan = read_plan(run / "plan.json")
    job = next((j for j in plan.jobs if isinstance(j, TrainJob) and j.key == key), None)
    if job is None:
        raise RunError(
            f"the plan in {run} has no job {name} as it was when this configuration was emitted",
            "emit the configuration again from the spec, and run it again with --prepare",
        )
    made = results(plan, Store(run))
    folders = {}
    for source in job.data:
        needed = _name(plan, job.inputs[f"data:{source}"])
        if needed not in made:
            raise RunError(
                f"{run} does not have the data of {name} yet: {needed} is missing", PREPARE
            )
        folders[f"data:{source}"] = made[needed]
    first = {source: window.first_token for source, window in job.data.items()}
    return dataloader(job, folders, run, first).build(**keywords)


def _name(plan: Plan, key: str) -> str:
    return next(job.id for job in plan.jobs if job.key == key)
