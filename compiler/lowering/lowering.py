"""The shared state of lowering: the list of jobs, and what stages have in common."""

from collections.abc import Mapping, Sequence

from ..program import Scheduled, ScheduledStage, StageOfMany
from .job_list import Jobs
from .model_jobs import Models
from .training_jobs import Training, Way


class Lowering:
    """The jobs of a program under construction.

    Attributes:
        outputs: stage → key of the job that makes its output for people.
        unused: stages whose results are models that no stage has continued from so far.

    Args:
        ways: model of a training stage → how it trains.
    """

    def __init__(self, program: Scheduled, ways: Mapping[type, Way]) -> None:
        self.program = program
        self.jobs = Jobs(program)
        self.models = Models(program, self.jobs)
        self.training = Training(program, self.jobs, self.models, ways)
        self.outputs: dict[str, str] = {}
        self.unused: dict[str, None] = {}

    def trained(self, stage: ScheduledStage) -> None:
        """Adds the jobs of a stage that trains."""
        self.training.stage(stage)
        self.continued(stage.name, stage.sources)

    def joined(self, stage: StageOfMany, key: str) -> None:
        """Notes the job that merges several models or chooses one."""
        self.jobs.result[stage.name] = key
        self.training.goes_on(stage.name, stage.of[0])
        self.continued(stage.name, stage.of)

    def continued(self, name: str, sources: Sequence[str]) -> None:
        """Notes a stage with weights, and the stages that it continues from."""
        for source in sources:
            self.unused.pop(source, None)
        self.unused[name] = None
