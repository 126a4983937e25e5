"""The exports of trained models that stages need, and the other inputs of measures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...spec.record import replace
from ..costs.generation import Draws
from ..placement import flat
from ..plan.measures import HELD_OUT, AccuracyMeasure, Answered, LossMeasure, VerifiedMeasure
from ..plan.plan import (
    Attempt,
    BestJob,
    DrawJob,
    EnsembleJob,
    EvaluateJob,
    ExportJob,
    HeldOutJob,
    JudgeJob,
    TrainJob,
)
from ..plan.verifiers import Verifier
from ..program import Form, ModelStage, Scheduled, ScheduledStage, Trained, WeightsStage
from ..torchtitan.configuration import torchtitan
from ..values import Architecture
from .job_list import Jobs
from .reading import answered, held_out, with_reading
from .verifiers import comparing
from .writing import answers as known_answers
from .writing import for_measures, needs

HeldOut = LossMeasure | AccuracyMeasure


def separates(trained: Trained) -> str | None:
    """What stands between the steps of answers, if a model scores each of them."""
    return getattr(trained.spec, "separator", None)


class Measured(NamedTuple):
    """A model to measure.

    Attributes:
        name: of its export.
        stage: of the export.
        model: key of the job that makes it.
        form: in which it was trained.
    """

    name: str
    stage: str
    model: str
    trained: Trained
    form: Form


class Taken(NamedTuple):
    """The inputs of a job that measures, and the GPUs on which its models generate."""

    inputs: dict[str, str]
    content: dict[str, Any]


class Models:
    """Adds the exports of models and the jobs that measure them, and remembers the exports."""

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
        """The key of the export of a model; by default, of a stage's result."""
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
        """The type to which the weights of a stage's export are rounded: that of its `export`, or
        else the precision of training. Published weights keep theirs."""
        spec, trained = self.program.stages[stage].spec, self.program.trained(stage)
        said = getattr(spec, "export", None)
        if said in ("bf16", "fp32"):
            return "bf16" if said == "bf16" else None
        trains = isinstance(trained, ScheduledStage) and trained.steps
        return "bf16" if trains and trained.precision.kind != "fp32" else None

    def _context(self, model: str, shape: Architecture) -> int:
        """The context of a job's result; scaled positions can be told apart at least over their
        original length."""
        return max(self.jobs.contexts[model], shape.rope_original)

    def result(self, stage: str) -> Measured:
        """The result of a stage, as a model to measure."""
        trained = self.program.trained(stage)
        return Measured(stage, stage, self.jobs.result[stage], trained, trained.last)

    def evaluation(
        self,
        of: Measured,
        measures: list[Any],
        *,
        id: str,
        stage: str,
        judge: str | None = None,
        dialog: dict[str, Any] | None = None,
    ) -> str:
        """Adds the job of an evaluation; returns its key. Takes the arguments of `measured`."""
        found = self.measured([of], measures, id=id, stage=stage, judge=judge, dialog=dialog)
        content = {"measures": measures, **found.content}
        return self.jobs.add(EvaluateJob, content, found.inputs, id=id, stage=stage)

    def measured(
        self,
        of: Sequence[Measured],
        measures: list[Any],
        *,
        id: str,
        stage: str,
        judge: str | None = None,
        dialog: dict[str, Any] | None = None,
        extends: Attempt | None = None,
    ) -> Taken:
        """The inputs of a job that measures one model, or several of the same shape.

        Args:
            of: the models.
            id, stage, extends: of the job.
            dialog: the protocol of chats that losses are measured on.
        """
        held = [each for each in measures if isinstance(each, HELD_OUT)]
        asked = [each for each in measures if isinstance(each, Answered)]
        others = [each for each in measures if not isinstance(each, (*HELD_OUT, Answered))]
        inputs, written, many = {}, [], len(of) > 1
        for number, each in enumerate(of):
            place = f".{number}" if many else ""
            if held:
                name = f"heldout.{id}{place}"
                inputs[f"scores{place}"] = self._held_out(each, held, name, stage, dialog, extends)
            if asked:
                inputs |= self._answered(each, asked, judge, id, place, stage, extends)
            if others:
                key = self.export(each.name, each.stage, each.model, extends)
                inputs[f"export{place}" if many else "model"] = key
                written.append(key)
        if not others:
            return Taken(inputs, {})
        models = [self.jobs.by_key[key].model for key in written]
        return Taken(inputs, for_measures(of[0].trained, models, others))

    def _answered(
        self,
        of: Measured,
        measures: Sequence[Answered],
        judge: str | None,
        id: str,
        place: str,
        stage: str,
        extends: Attempt | None,
    ) -> dict[str, str]:
        """Adds the job that samples answers of a model, and the one that judges them."""
        first = measures[0]
        settings = {
            "dialog": first.dialog,
            "prompts": first.prompts,
            "limit": first.limit,
            "draws": first.draws,
            "temperature": first.temperature,
            "top_p": 1.0,
            "max_tokens": first.max_tokens,
            "seed": first.seed,
        }
        verify = {
            name: verifier
            for each in measures
            if isinstance(each, VerifiedMeasure)
            for name, verifier in each.verify.items()
        }
        drawn = self.drawn(
            of,
            id=f"{id}.draws{place}",
            stage=stage,
            judges=[judge] if judge else [],
            settings=settings,
            answers=comparing(verify),
            extends=extends,
        )
        found = {f"draws{place}": drawn}
        if verify:
            found[f"prompts{place}"] = self.jobs.by_key[drawn].inputs["prompts"]
        if judge:
            found[f"judged{place}"] = self.judged(
                drawn, judge, first.dialog, id=f"{id}.judge{place}", stage=stage
            )
        return found

    def _held_out(
        self,
        of: Measured,
        measures: list[Any],
        id: str,
        stage: str,
        dialog: dict[str, Any] | None,
        extends: Attempt | None,
    ) -> str:
        """Adds the job in which the ranks that trained a model measure it on held-out data."""
        lengths = [each.seq_len for each in measures if isinstance(each, LossMeasure)]
        # Positions are rotated as in training, whatever length is measured.
        longest = max([of.form.seq_len, *lengths])
        read = held_out(measures, longest, self.jobs.recipe.datasets)
        content = with_reading(self._walk(of, longest), read, scores=not lengths)
        content = {"measures": measures, **content}
        trained = of.trained
        inputs = {"model": of.model}
        for measure in measures:
            for name in measure.data:
                inputs[f"data:{name}"] = self._data(name, trained, measure, dialog)
        return self.jobs.add(HeldOutJob, content, inputs, id=id, stage=stage, extends=extends)

    def _data(
        self, name: str, trained: Trained, measure: HeldOut, dialog: dict[str, Any] | None
    ) -> str:
        """The key of the job that makes held-out documents, dialogs or preferences."""
        tokenizer, longest = trained.tokenizer, trained.last.seq_len
        if isinstance(measure, AccuracyMeasure):
            separator = separates(trained)
            return self.jobs.records(name, tokenizer, trained.dialog, longest, separator=separator)
        if self.jobs.recipe.datasets[name].kind == "documents":
            return self.jobs.documents(name, tokenizer)
        every = measure.every_token
        return self.jobs.records(name, tokenizer, dialog, longest, every_token=every)

    def drawn(
        self,
        of: Measured,
        *,
        id: str,
        stage: str,
        judges: Sequence[str],
        settings: dict[str, Any],
        answers: dict[str, Verifier] | None = None,
        extends: Attempt | None = None,
        on: ModelStage | None = None,
        before: str | None = None,
    ) -> str:
        """Adds the job that samples answers of a model; returns its key.

        Args:
            on: the stage on whose cluster it runs; by default the one that trained the model.
            judges: the stages whose models read the answers.
            settings: the fields of the job that say what is sampled.
            answers: verifiers that compare with the right answers of the prompts.
            before: key of the job after whose prompts this one's begin.
        """
        export = self.export(of.name, of.stage, of.model, extends)
        model, name = self.jobs.by_key[export].model, settings["prompts"]
        window = settings.get("window")
        read = [member for judge in judges for member in self._members(judge)]
        contexts = [model.context, *(self._judge(judge)[1] for judge in read)]
        contexts += [window.longest] if window else []
        dataset = self.jobs.recipe.datasets[name]
        prompts = self.jobs.records(
            name, of.trained.tokenizer, settings["dialog"], min(contexts) - 1, answers=answers
        )
        limit, draws, most = (settings[name] for name in ("limit", "draws", "max_tokens"))
        context = model.context
        if window:
            limit, context = window.count, min(context, window.longest)
        found = known_answers(dataset, limit, draws, most, context)
        known = None if found is None else [found]
        on = on or of.trained
        content = settings | needs(on, model, context, known, spread=True, turns=bool(window))
        inputs = {"model": export, "prompts": prompts} | ({"before": before} if before else {})
        return self.jobs.add(DrawJob, content, inputs, id=id, stage=stage, extends=extends)

    def _members(self, judge: str) -> Sequence[str]:
        """The reward models of a judge: itself, or those of an ensemble."""
        stage = self.program.stages[judge]
        return stage.sources if stage.spec.judges else [judge]

    def _judge(self, stage: str) -> tuple[Measured, int]:
        """A reward model, and its context in tokens."""
        of = self.result(stage)
        job = self.jobs.by_key[of.model]
        shape = job.model if isinstance(job, TrainJob) else self.shape(of.trained)
        return of, self._context(of.model, shape)

    def _answers(self, drawn: str) -> Draws | None:
        """What a job draws, as far as the spec says how much."""
        job = self.jobs.by_key[drawn]
        assert isinstance(job, DrawJob)
        context = self.jobs.by_key[job.inputs["model"]].model.context
        dataset = self.jobs.recipe.datasets[job.prompts]
        return known_answers(dataset, job.limit, job.draws, job.max_tokens, context)

    def judged(self, drawn: str, judge: str, dialog: dict[str, Any], *, id: str, stage: str) -> str:
        """Adds the job in which the ranks of a reward model score answers; returns its key. Of an
        ensemble, the jobs of all its models, and the one that makes one score of theirs."""
        spec = self.program.stages[judge].spec
        if spec.judges:
            inputs = {
                f"of.{number}": self.judged(drawn, each, dialog, id=f"{id}.{each}", stage=stage)
                for number, each in enumerate(spec.of)
            }
            content = {"combine": spec.combine, "penalty": spec.penalty or 1.0, "judge": judge}
            return self.jobs.add(EnsembleJob, content, inputs, id=id, stage=stage)
        of, context = self._judge(judge)
        inputs = {
            "model": of.model,
            "draws": drawn,
            "prompts": self.jobs.by_key[drawn].inputs["prompts"],
        }
        if of.trained.tokenizer:
            inputs["tokenizer"] = self.jobs.tokenizer(of.trained.tokenizer)
        read = answered(self._answers(drawn), context)
        if isinstance(of.trained, WeightsStage):
            dialog = of.trained.dialog or dialog
        content = {"dialog": dialog, **with_reading(self._walk(of, context), [read], scores=True)}
        if separator := separates(of.trained):
            content["by_step"] = {"separator": separator, "combine": spec.combine}
        return self.jobs.add(JudgeJob, content, inputs, id=id, stage=stage)

    def _walk(self, of: Measured, longest: int) -> dict[str, Any]:
        """The fields of a job that runs a model on the ranks that trained it.

        Args:
            longest: tokens of the longest row.
        """
        trained, form, job = of.trained, of.form, self.jobs.by_key[of.model]
        mesh = flat(form.resources)
        micro_batch = form.micro_batch if mesh == form.resources else 1
        walked = replace(form, resources=mesh, seq_len=longest, micro_batch=micro_batch)
        rates = trained.lr if isinstance(trained, ScheduledStage) else []
        return {
            "model": (job.model if isinstance(job, TrainJob) else self.shape(trained)).main,
            "seq_len": longest,
            "resources": mesh,
            "torchtitan": torchtitan(trained, walked, 1, self.jobs.seed, rates, measures=True),
        }
