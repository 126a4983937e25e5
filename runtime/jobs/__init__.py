"""The implementation of each kind of job: a function here, and a row in `WORK`."""

from ...compiler.plan.plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    EvaluateJob,
    ExportJob,
    FilterJob,
    GateJob,
    ReferenceJob,
    SampleJob,
    ScoreJob,
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
        on_all_ranks=True,
        known=training.positions,
        before=training.begin,
        after=training.finish,
        kept=training.take_over,
    ),
    ReferenceJob: Work(training.reference, on_all_ranks=True),
    ScoreJob: Work(training.score, on_all_ranks=True),
    AverageJob: Work(models.average),
    BestJob: Work(measuring.best),
    ExportJob: Work(models.export),
    SampleJob: Work(models.sample),
    EvaluateJob: Work(measuring.evaluate),
    GateJob: Work(measuring.gate),
}
"""Every kind of job of a plan."""
