"""Exports the model of any stage, including those that the plan does not export."""

from collections.abc import Mapping
from typing import Any

from ...spec.record import replace
from .contexts import contexts_of
from .keys import content_key
from .objectives import scores
from .part import NoSuchStage, stages_of
from .plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    ExportJob,
    Plan,
    RolloutJob,
    TrainJob,
    WeightsJob,
)

_MODELS = (TrainJob, AverageJob, BestJob, WeightsJob)


def export_of(plan: Plan, name: str) -> ExportJob:
    """The job that exports the model of a stage, or of a job by its id, such as `pretrain.1`.

    Raises: NoSuchStage: no stage has this name, or it makes no model.
    """
    jobs = {job.key: job for job in plan.jobs}
    model = _model(plan, name)
    own = [j for j in plan.jobs if isinstance(j, ExportJob) and j.inputs["model"] == model.key]
    # If the plan exports a model twice, once to measure it, the one in its outputs counts.
    own.sort(key=lambda job: job.key not in plan.outputs.values())
    if own:
        return own[0]
    job = exporting(model, jobs)
    job = job.model_copy(update={"dtype": _dtype(plan, model, _trained(model, jobs))})
    return job.model_copy(update={"key": content_key(job)})


def exporting(model: Any, jobs: Mapping[str, Any]) -> ExportJob:
    """The job that exports the model of a job, with unchanged weights.

    Args:
        jobs: key → job, of the plan, in its order.
    """
    if isinstance(model, WeightsJob):  # which does not say whose tokenizer belongs to it
        for job in jobs.values():
            if isinstance(job, ExportJob) and job.inputs["model"] == model.key:
                return job
    trained = _trained(model, jobs)
    shape = trained.model
    contexts = contexts_of(jobs.values())
    known = max(contexts[model.key], shape.rope_original)
    each = []
    if isinstance(model, BestJob):
        of = [jobs[model.inputs[f"of.{number}"]] for number in range(len(model.of))]
        each = [max(contexts[one.key], shape.rope_original) for one in of]
    dialogs = [
        jobs[key].dialog
        for role, key in trained.inputs.items()
        if role.startswith("data:") and isinstance(jobs[key], DatasetJob | RolloutJob)
    ]
    inputs = {"model": model.key}
    if "tokenizer" in trained.inputs:
        inputs["tokenizer"] = trained.inputs["tokenizer"]
    rewards = isinstance(trained, TrainJob) and scores(trained.objective)
    job = ExportJob(
        key="",
        id=f"export.{model.id if isinstance(model, TrainJob) else model.stage}",
        stage=model.stage,
        inputs=inputs,
        model=replace(shape, context=known),
        head="score" if rewards else "tokens",
        dialog=next(iter(dialogs), None),
        contexts=each if len(set(each)) > 1 else None,
    )
    return job.model_copy(update={"key": content_key(job)})


def _model(plan: Plan, name: str) -> Any:
    """The job that makes the model of a stage: its last segment.

    Raises: NoSuchStage
    """
    made = [job for job in plan.jobs if isinstance(job, _MODELS) and not job.extends]
    found = [job for job in made if job.id == name] or [job for job in made if job.stage == name]
    if found:
        return found[-1]
    stages_of(plan, name)
    stages = ", ".join(dict.fromkeys(job.stage for job in made if job.stage))
    raise NoSuchStage(f"the stage `{name}` makes no model", f"name one of {stages}")


def _dtype(plan: Plan, model: Any, trained: Any) -> str | None:
    """The type to which weights are rounded: that of the stage's `export`, or else the precision of
    training. Published weights keep theirs."""
    summary = plan.stages.get(model.stage)
    said = summary.values.get("export") if summary else None
    if said is not None and said.value in ("bf16", "fp32"):
        return "bf16" if said.value == "bf16" else None
    sections = trained.torchtitan if isinstance(trained, TrainJob) else {}
    precision = sections.get("training", {}).get("mixed_precision_param")
    return "bf16" if precision == "bfloat16" else None


def _trained(job: Any, jobs: Mapping[str, Any]) -> Any:
    """The job that trained or read a model; for an average or a choice, that of its first model."""
    while isinstance(job, AverageJob | BestJob):
        job = jobs[job.inputs["of.0"]]
    return job
