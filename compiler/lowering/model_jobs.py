"""What becomes of trained models: exports, means, choices, evaluations, samples and scores."""

from typing import Any

from ...spec.record import replace
from ..plan.measures import AccuracyMeasure, LossMeasure, RewardMeasure
from ..plan.plan import (
    Attempt,
    AverageJob,
    BestJob,
    EvaluateJob,
    ExportJob,
    SampleJob,
    ScoreJob,
    TrainJob,
    WeightsJob,
)
from ..program import (
    AverageStage,
    BestStage,
    EvaluateStage,
    Program,
    SampleStage,
    ScoreStage,
    TrainStage,
    WeightsStage,
)
from ..torchtitan.configuration import torchtitan
from ..values import Architecture
from .job_list import Jobs
from .measures import stage_measures


class Models:
    """Adds the jobs that take models, and keeps their exports."""

    def __init__(self, program: Program, jobs: Jobs) -> None:
        self.program = program
        self.jobs = jobs
        self.exports: dict[str, str] = {}

    def shape(self, stage: TrainStage) -> Architecture:
        """The architecture of a stage's result, with its last length and RoPE base."""
        segment = stage.segments[-1]
        return replace(stage.model, context=segment.seq_len, rope_theta=segment.rope_theta)

    def export(
        self, name: str, stage: str, model: str | None = None, extends: Attempt | None = None
    ) -> str:
        """The key of the export of a model, by default of a stage's result."""
        model = model or self.jobs.result[stage]
        if model not in self.exports:
            trained = self.program.trained(stage)
            job = self.jobs.by_key[model]
            inputs = {"model": model}
            if trained.tokenizer:
                inputs["tokenizer"] = self.jobs.tokenizer(trained.tokenizer)
            shape = job.model if isinstance(job, TrainJob) else self.shape(trained)
            content: dict[str, Any] = {
                "model": replace(shape, context=self._context(model, shape)),
                "head": "score" if trained.spec.kind == "reward" else "tokens",
                "dialog": trained.dialog,
            }
            if isinstance(job, BestJob):
                of = [job.inputs[f"of.{number}"] for number in range(len(job.of))]
                contexts = [self._context(each, shape) for each in of]
                if len(set(contexts)) > 1:
                    content["contexts"] = contexts
            self.exports[model] = self.jobs.add(
                ExportJob, content, inputs, id=f"export.{name}", stage=stage, extends=extends
            )
        return self.exports[model]

    def _context(self, model: str, shape: Architecture) -> int:
        """The context that the result of a job knows: positions that are stretched are told apart
        over their original length at least."""
        return max(self.jobs.contexts[model], shape.rope_original)

    def published(self, stage: WeightsStage) -> None:
        """Adds the job that reads published weights."""
        content = {"model": self.shape(stage.result), "source": stage.source}
        key = self.jobs.add(WeightsJob, content, {}, id=stage.name, stage=stage.name)
        self.jobs.result[stage.name] = key

    def average(self, stage: AverageStage) -> None:
        """Adds the job of an average stage."""
        content = {
            "model": self.shape(self.program.trained(stage.name)),
            "weights": [str(w) for w in stage.weights],
        }
        inputs = {f"of.{i}": self.jobs.result[name] for i, name in enumerate(stage.of)}
        key = self.jobs.add(AverageJob, content, inputs, id=stage.name, stage=stage.name)
        self.jobs.result[stage.name] = key

    def best(self, stage: BestStage) -> None:
        """Adds the job of a best stage."""
        trained = self.program.trained(stage.name)
        (measure,) = stage_measures(stage, trained, self.jobs.seed)
        exports = [self.export(name, name) for name in stage.of]
        inputs = self._measured(stage.spec.judge, [measure], trained, exports)
        for number, name in enumerate(stage.of):
            inputs[f"of.{number}"] = self.jobs.result[name]
            inputs[f"export.{number}"] = exports[number]
        content = {"of": stage.of, "measure": measure, "higher": measure.metric != "loss"}
        key = self.jobs.add(BestJob, content, inputs, id=stage.name, stage=stage.name)
        self.jobs.result[stage.name] = key

    def evaluate(self, stage: EvaluateStage) -> str:
        """Adds the job of an evaluate stage; returns its key."""
        trained = self.program.trained(stage.name)
        export = self.export(stage.of, stage.of)
        measures = stage_measures(stage, trained, self.jobs.seed)
        return self.evaluation(stage.name, trained, measures, export, stage.name, stage.spec.judge)

    def evaluation(
        self,
        id: str,
        stage: TrainStage,
        measures: list[Any],
        export: str,
        name: str,
        judge: str | None = None,
    ) -> str:
        """Adds an evaluate job for stage `name`; returns its key."""
        inputs = self.evaluation_inputs(measures, stage, export, judge)
        return self.jobs.add(EvaluateJob, {"measures": measures}, inputs, id=id, stage=name)

    def evaluation_inputs(
        self, measures: list[Any], stage: TrainStage, export: str, judge: str | None = None
    ) -> dict[str, str]:
        """The model, and what the measures take."""
        return {"model": export} | self._measured(judge, measures, stage, [export])

    def _measured(
        self, judge: str | None, measures: list[Any], stage: TrainStage, exports: list[str]
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
                        name, stage.tokenizer, stage.dialog, stage.segments[-1].seq_len
                    )
            elif isinstance(measure, RewardMeasure):
                room = self._room([*exports, *judges.values()])
                inputs[f"prompts:{measure.prompts}"] = self.jobs.records(
                    measure.prompts, stage.tokenizer, measure.dialog, room
                )
        return inputs | judges

    def sample(self, stage: SampleStage) -> str:
        """Adds the job of a sample stage; returns its key."""
        spec, trained = stage.spec, self.program.trained(stage.of)
        readers = {"model": self.export(stage.of, stage.of)}
        if spec.judge:
            readers["judge"] = self.export(spec.judge, spec.judge)
        prompts = self.jobs.records(
            spec.prompts, trained.tokenizer, stage.dialog, self._room(list(readers.values()))
        )
        inputs = {**readers, "prompts": prompts}
        content = {
            "dialog": stage.dialog,
            "prompts": spec.prompts,
            "draws": spec.draws,
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "max_tokens": spec.max_tokens,
            "keep": stage.keep,
            "seed": self.jobs.seed,
        }
        key = self.jobs.add(SampleJob, content, inputs, id=stage.name, stage=stage.name)
        self.jobs.result[stage.name] = key
        return key

    def _room(self, exports: list[str]) -> int:
        """Tokens of the longest prompt after which all of some models can still read an answer."""
        return min(self.jobs.by_key[key].model.context for key in exports) - 1

    def score(self, stage: ScoreStage) -> None:
        """Adds the jobs of a score stage, one a dataset."""
        trained = self.program.trained(stage.of)
        segment = trained.segments[-1]
        for name in stage.spec.data:
            data = self.jobs.documents(name, trained.tokenizer, filtered=False)
            content = {
                "model": self.shape(trained),
                "source": name,
                "seq_len": stage.spec.seq_len or segment.seq_len,
                "resources": segment.resources,
                "torchtitan": torchtitan(trained, segment, 1, self.jobs.seed, trained.lr),
            }
            inputs = {"model": self.jobs.result[stage.of], f"data:{name}": data}
            key = self.jobs.add(
                ScoreJob, content, inputs, id=f"{stage.name}.{name}", stage=stage.name
            )
            self.jobs.scores[stage.name, name] = key
