"""The exports that stages need of trained models, and the other inputs of measures."""

from typing import Any

from ...spec.record import replace
from ..plan.measures import AccuracyMeasure, LossMeasure, RewardMeasure
from ..plan.plan import (
    Attempt,
    BestJob,
    EvaluateJob,
    ExportJob,
    TrainJob,
)
from ..program import Scheduled, ScheduledStage, Trained
from ..values import Architecture
from .job_list import Jobs
from .writing import for_measures


class Models:
    """Adds the exports of models and the jobs that measure them, and keeps the exports."""

    def __init__(self, program: Scheduled, jobs: Jobs) -> None:
        self.program = program
        self.jobs = jobs
        self.exports: dict[tuple[str, str | None], str] = {}

    def shape(self, stage: Trained) -> Architecture:
        """The architecture of a stage's result, with its last length and RoPE base."""
        last = stage.last
        return stage.model.knowing(last.seq_len, last.rope_theta)

    def export(
        self, name: str, stage: str, model: str | None = None, extends: Attempt | None = None
    ) -> str:
        """The key of the export of a model, by default of a stage's result."""
        model = model or self.jobs.result[stage]
        dtype = self._dtype(stage)
        if (model, dtype) not in self.exports:
            trained = self.program.trained(stage)
            job = self.jobs.by_key[model]
            inputs = {"model": model}
            if trained.tokenizer:
                inputs["tokenizer"] = self.jobs.tokenizer(trained.tokenizer)
            shape = job.model if isinstance(job, TrainJob) else self.shape(trained)
            content: dict[str, Any] = {
                "model": replace(shape, context=self._context(model, shape)),
                "head": "tokens" if trained.spec.writes_text else "score",
                "dtype": dtype,
                "dialog": trained.dialog,
            }
            if isinstance(job, BestJob):
                of = [job.inputs[f"of.{number}"] for number in range(len(job.of))]
                contexts = [self._context(each, shape) for each in of]
                if len(set(contexts)) > 1:
                    content["contexts"] = contexts
            self.exports[model, dtype] = self.jobs.add(
                ExportJob, content, inputs, id=f"export.{name}", stage=stage, extends=extends
            )
        return self.exports[model, dtype]

    def _dtype(self, stage: str) -> str | None:
        """What the weights of a stage's export are rounded to: what its `export` says, or else
        the precision that they were trained in. Published weights keep theirs."""
        spec, trained = self.program.stages[stage].spec, self.program.trained(stage)
        said = getattr(spec, "export", None)
        if said in ("bf16", "fp32"):
            return "bf16" if said == "bf16" else None
        trains = isinstance(trained, ScheduledStage) and trained.steps
        return "bf16" if trains and trained.precision == "bf16" else None

    def _context(self, model: str, shape: Architecture) -> int:
        """The context that the result of a job knows: positions that are stretched are told apart
        over their original length at least."""
        return max(self.jobs.contexts[model], shape.rope_original)

    def evaluation(
        self,
        id: str,
        stage: Trained,
        measures: list[Any],
        export: str,
        name: str,
        judge: str | None = None,
    ) -> str:
        """Adds an evaluate job for stage `name`; returns its key."""
        inputs = self.evaluation_inputs(measures, stage, export, judge)
        content = {"measures": measures, **self.writing(stage, measures, export)}
        return self.jobs.add(EvaluateJob, content, inputs, id=id, stage=name)

    def writing(self, stage: Trained, measures: list[Any], export: str) -> dict[str, Any]:
        """The GPUs on which an exported model writes what measures ask for."""
        return for_measures(stage, [self.jobs.by_key[export].model], measures)

    def evaluation_inputs(
        self, measures: list[Any], stage: Trained, export: str, judge: str | None = None
    ) -> dict[str, str]:
        """The model, and what the measures take."""
        return {"model": export} | self.measured(judge, measures, stage, [export])

    def measured(
        self, judge: str | None, measures: list[Any], stage: Trained, exports: list[str]
    ) -> dict[str, str]:
        """What measures take besides the models of `exports`."""
        inputs = {}
        judges = {"judge": self.export(judge, judge)} if judge else {}
        for measure in measures:
            if isinstance(measure, LossMeasure):
                for name in measure.data:
                    inputs[f"data:{name}"] = self.jobs.documents(name, stage.tokenizer)
            elif isinstance(measure, AccuracyMeasure):
                for name in measure.data:
                    inputs[f"data:{name}"] = self.jobs.records(
                        name, stage.tokenizer, stage.dialog, stage.last.seq_len
                    )
            elif isinstance(measure, RewardMeasure):
                room = self.room([*exports, *judges.values()])
                inputs[f"prompts:{measure.prompts}"] = self.jobs.records(
                    measure.prompts, stage.tokenizer, measure.dialog, room
                )
        return inputs | judges

    def room(self, exports: list[str]) -> int:
        """Tokens of the longest prompt after which all of some models can still read an answer."""
        return min(self.jobs.by_key[key].model.context for key in exports) - 1
