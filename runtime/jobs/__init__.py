"""The implementation of each kind of job: a function here, and a row in `WORK`."""

from ...compiler.plan.plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    DrawJob,
    EnsembleJob,
    EvaluateJob,
    ExportJob,
    FilterJob,
    GateJob,
    HeldOutJob,
    JudgeJob,
    LikelihoodJob,
    ReferenceJob,
    RolloutJob,
    SampleJob,
    ScoreJob,
    TeacherJob,
    TokenizerJob,
    TrainJob,
    WeightsJob,
)
from . import data, measuring, models, training
from .task import Work

WORK: dict[type, Work] = {
    TokenizerJob: Work(data.tokenizer, outside=data.outside, prepares=True),
    DatasetJob: Work(data.dataset, outside=data.outside, prepares=True),
    FilterJob: Work(data.filtered, prepares=True),
    WeightsJob: Work(models.weights, outside=models.published, before=models.tell_change),
    TrainJob: Work(
        training.train,
        known=training.known,
        before=training.begin,
        after=training.finish,
        kept=training.take_over,
    ),
    ReferenceJob: Work(training.reference),
    TeacherJob: Work(training.teach),
    LikelihoodJob: Work(training.likelihood),
    ScoreJob: Work(training.score),
    HeldOutJob: Work(training.held_out),
    JudgeJob: Work(training.judge),
    EnsembleJob: Work(models.ensemble),
    AverageJob: Work(models.average),
    BestJob: Work(measuring.best, known=measuring.kept),
    ExportJob: Work(models.export),
    DrawJob: Work(models.draw, known=models.drawn),
    SampleJob: Work(models.sample),
    RolloutJob: Work(models.rollout),
    EvaluateJob: Work(measuring.evaluate, known=measuring.kept),
    GateJob: Work(measuring.gate, known=measuring.kept),
}
"""Every kind of job in a plan."""
