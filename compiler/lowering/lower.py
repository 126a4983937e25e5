"""The program to jobs: what runs, with complete torchtitan configurations and content keys."""

from ...spec.record import replace
from ..program import (
    AverageStage,
    BestStage,
    CheckpointStage,
    EvaluateStage,
    Program,
    SampleStage,
    TrainStage,
    WeightsStage,
)
from .job_list import Jobs
from .model_jobs import Models
from .training_jobs import Training


def lower(program: Program) -> Program:
    """Fills `jobs`, in an order in which they can run, and `outputs`."""
    lowering = _Lowering(program)
    lowering.run()
    return replace(program, jobs=lowering.jobs.jobs, outputs=lowering.outputs)


class _Lowering:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.jobs = Jobs(program)
        self.models = Models(program, self.jobs)
        self.training = Training(program, self.jobs, self.models)
        self.outputs: dict[str, str] = {}

    def run(self) -> None:
        needed: dict[str, None] = {}
        for name, stage in self.program.stages.items():
            if isinstance(stage, TrainStage):
                self.training.stage(stage)
                needed.pop(stage.parent or "", None)
            elif isinstance(stage, WeightsStage):
                self.models.published(stage)
            elif isinstance(stage, CheckpointStage):
                self.training.checkpoint(stage)
            elif isinstance(stage, AverageStage | BestStage):
                if isinstance(stage, AverageStage):
                    self.models.average(stage)
                else:
                    self.models.best(stage)
                self.training.goes_on(name, stage.of[0])
                for source in stage.of:
                    needed.pop(source, None)
            elif isinstance(stage, EvaluateStage):
                self.outputs[name] = self.models.evaluate(stage)
            elif isinstance(stage, SampleStage):
                self.outputs[name] = self.models.sample(stage)
                needed.pop(stage.spec.judge or "", None)
            else:
                self.models.score(stage)
            if isinstance(stage, TrainStage | CheckpointStage | AverageStage | BestStage):
                needed[name] = None
        for name in needed:
            self.outputs[name] = self.models.export(name, name)
