"""torchtitan's configuration of a train job: the plan's sections, and etude's components."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchtitan.components.loss import BaseLoss, ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.optimizer import ParamGroupConfig
from torchtitan.distributed.activation_checkpoint import FullAC, MemoryBudgetAC, SelectiveAC
from torchtitan.protocols.model_spec import ModelSpec

from ...compiler.plan.checkpoints import back_to, size
from ...compiler.plan.objectives import makes_logits, scores
from ...compiler.plan.plan import (
    Distill,
    Dpo,
    Grpo,
    Kto,
    Prm,
    Reward,
    Sft,
    TrainJob,
)
from ...compiler.schedule.timeline import Timeline
from ...compiler.tensor_widths import shared_keys
from ...compiler.torchtitan.adapters import SECTION as ADAPTER
from ...compiler.torchtitan.quantization import SECTION, compiles
from ...compiler.torchtitan.told import ATTENTION, DISPATCHER
from ...compiler.values import ROUTER_LOSSES
from ..errors import RunError
from . import adapters
from .checkpoints.checkpoint import Checkpoints, Policy, Start
from .checkpoints.storage import HEAD
from .families import Head, model_spec
from .families.parts import attending, dispatching, sharing
from .further import FurtherLoss
from .loader import Loader, NoTokenizer
from .metrics import Metrics, OnEvent
from .objectives import DpoLoss, LanguageLoss, RecordLoss
from .profiler import Profiler
from .quantization import convert, reset
from .records.dialogs import DialogLoss
from .records.distill import DistillLoss
from .records.policy import PolicyLoss
from .records.ratings import KtoLoss
from .records.rewards import RewardLoss
from .records.solutions import StepLoss
from .trainer import Trainer
from .updates.lr import Schedulers
from .updates.optimizer import Optimizers
from .updates.qk_clip import watch
from .updates.router_losses import learn
from .weights.initial import by_name

RECOMPUTATION = {
    "full": FullAC.Config,
    "selective": SelectiveAC.Config,
    "memory_budget": MemoryBudgetAC.Config,
}


def trainer_config(
    job: TrainJob,
    folder: Path,
    *,
    dataloader: Loader.Config,
    start: Start | None,
    on_event: OnEvent,
    profiles: Path | None = None,
) -> Trainer.Config:
    """The configuration from which torchtitan builds the job's trainer.

    Args:
        folder: of the job; checkpoints go into its `checkpoints`.
        start: the checkpoint that the job begins with; None for random weights.
        profiles: where profiles of its stage go; None: in the job's folder.

    Raises:
        RunError: the plan has a section or field that torchtitan lacks, or a value that it does not
            take, or a placement that the objective does not support.
    """
    timeline = Timeline.of(job)
    head, loss = _objective(job)
    config = Trainer.Config(
        job=job,
        model_spec=_model(job, head, start),
        hf_assets_path="",
        dump_folder=str(folder),
        tokenizer=NoTokenizer(),
        dataloader=dataloader,
        optimizer=Optimizers.Config(),
        lr_scheduler=Schedulers.Config(timeline=timeline),
        profiler=Profiler.Config(job=job, target=profiles or folder / "profiles", tell=on_event),
        metrics=Metrics.Config(job=job, on_event=on_event, disable_color_printing=True),
        checkpoint=_checkpoints(job, start, on_event),
        loss=loss,
    )
    own = {"training": {"steps": job.steps, "seq_len": job.seq_len}, "debug": {"seed": job.seed}}
    try:
        for name in (own.keys() | job.torchtitan.keys()) - {
            SECTION,
            ADAPTER,
            ATTENTION,
            DISPATCHER,
        }:
            if name == "activation_checkpoint":
                config.activation_checkpoint = _recomputation(job.torchtitan[name])
            else:
                _apply(config, name, {**own.get(name, {}), **job.torchtitan.get(name, {})})
        _check_backend(job, config)
        if head != "logits":
            # Row lengths differ between micro-batches.
            config.training = dataclasses.replace(config.training, disable_cuda_graphs=True)
            _check_placement(job, config)
        config.__post_init__()
    except (ValueError, TypeError) as error:
        raise RunError(
            f"torchtitan rejects the configuration of job {job.id}: {error}",
            "plan again with this version of etude",
        ) from error
    return config


def _checkpoints(job: TrainJob, start: Start | None, on_event: OnEvent) -> Checkpoints.Config:
    return Checkpoints.Config(
        enable=True,
        folder="checkpoints",
        async_mode="async" if job.resources.device == "cpu" else "async_with_pinned_mem",
        start=start,
        policy=Policy(job.saving, job.first_step, size(job), back_to(job)),
        tell=lambda message: on_event({"event": "warning", "message": message}),
    )


def _model(job: TrainJob, head: Head, start: Start | None) -> ModelSpec:
    """The job's model; weights that `start` lacks are drawn by name."""

    def drawn(name: str) -> bool:
        return start is None or (start.headless and name == HEAD) or adapters.is_adapter(name)

    further = job.schedule.mtp_loss is not None
    spec = model_spec(job.model, job.resources.device, job.seq_len, head, further=further)
    if isinstance(job.objective, Grpo):
        # Answers are drawn at this temperature, and learned by their probabilities at it.
        spec.model.lm_head.temperature = job.objective.temperature
    if job.qk_clip is not None:
        watch(spec.model)
    if job.schedule.settings.keys() & {*ROUTER_LOSSES}:
        learn(spec.model)
    if job.resources.device != "cpu":
        reset()
    if named := job.torchtitan.get(ATTENTION):
        spec.model = _attending(job, spec.model, named["backend"])
    if shared_keys(job.model, job.resources.tensor):
        spec.model = sharing(spec.model, job.resources.tensor)
    if named := job.torchtitan.get(DISPATCHER):
        spec.model = dispatching(spec.model, named["backend"])
    if converters := job.torchtitan.get(SECTION):
        spec.model = convert(spec.model, converters, compiled=compiles(job.torchtitan))
    parallelize = by_name(spec.parallelize_fn, job.seed, drawn)
    if converters := job.torchtitan.get(ADAPTER):
        trains_head = head == "score"
        spec.model = adapters.convert(spec.model, converters, trains_head=trains_head)
        parallelize = adapters.frozen(parallelize, trains_head=trains_head)
    return dataclasses.replace(spec, parallelize_fn=parallelize)


def _attending(job: TrainJob, model: Any, backend: str) -> Any:
    """
    Raises: RunError: this GPU does not have the backend.
    """
    try:
        return attending(model, backend)
    except ValueError as error:
        raise RunError(
            f"the job {job.id} cannot use `attention = {backend}` here: {error}",
            "write `attention = flex`, or run it on the GPUs that the plan names",
        ) from error


_OF_RECORDS: Mapping[type, type[RecordLoss]] = {
    Sft: DialogLoss,
    Reward: RewardLoss,
    Distill: DistillLoss,
    Dpo: DpoLoss,
    Kto: KtoLoss,
    Prm: StepLoss,
    Grpo: PolicyLoss,
}
"""The losses of objectives that ask a model about places in rows."""


def _objective(job: TrainJob) -> tuple[Head, BaseLoss.Config]:
    """The model's head for the job's objective, and the loss to train with."""
    if not makes_logits(job.objective):
        of_records = _OF_RECORDS[type(job.objective)].Config(objective=job.objective)
        return ("score" if scores(job.objective) else "tokens"), of_records
    terms = job.objective.terms()
    vocab = job.model.vocab
    if job.schedule.mtp_loss is not None:
        # Its loss reads several logits, which torchtitan's chunks do not have (0.3, `MTPLoss`).
        return "logits", FurtherLoss.Config(global_vocab_size=vocab, terms=terms)
    loss = (
        LanguageLoss.Config(global_vocab_size=vocab, terms=terms)
        if terms
        else CrossEntropyLoss.Config(global_vocab_size=vocab)
    )
    # On a GPU the logits of a whole batch would be by far the largest tensor.
    on_cpu = job.resources.device == "cpu"
    return "logits", loss if on_cpu else ChunkedLossWrapper.Config(loss_fn=loss)


def _check_placement(job: TrainJob, config: Trainer.Config) -> None:
    parallelism = config.parallelism
    for name, degree in (
        ("pipeline", parallelism.pipeline_parallel_degree),
        ("context", parallelism.context_parallel_degree),
    ):
        if degree > 1:
            raise RunError(
                f"the job {job.id} learns from rows of any length, so it cannot use {name} "
                "parallelism",
                f"remove `{name}` from the stage's placement",
            )


def _check_backend(job: TrainJob, config: Trainer.Config) -> None:
    """etude's own losses require a vocabulary that is sharded as spmd_types does it."""
    parallelism = config.parallelism
    loss = config.loss
    inner = loss.loss_fn if isinstance(loss, ChunkedLossWrapper.Config) else loss
    own = type(inner) is not CrossEntropyLoss.Config
    if own and parallelism.tensor_parallel_degree > 1 and parallelism.spmd_backend != "spmd_types":
        raise RunError(
            f"the loss of the job {job.id} has no tensor parallelism with the backend "
            f"`{parallelism.spmd_backend}`",
            "use torchtitan's default, spmd_types",
        )


def _apply(config: Trainer.Config, section: str, values: Mapping[str, Any]) -> None:
    if section not in {field.name for field in dataclasses.fields(config)}:
        raise RunError(f"torchtitan has no section `{section}`", "plan again with this version")
    before = getattr(config, section)
    if section == "optimizer" and "param_groups" in values:
        groups = [_make(ParamGroupConfig, section, group) for group in values["param_groups"]]
        values = {**values, "param_groups": groups}
    setattr(config, section, _make(before, section, values))


def _recomputation(values: Mapping[str, Any] | None) -> Any:
    if values is None:
        return None
    mode = values.get("mode")
    if mode not in RECOMPUTATION:
        raise RunError(f"torchtitan has no activation_checkpoint.mode `{mode}`", "plan again")
    rest = {name: value for name, value in values.items() if name != "mode"}
    return _make(RECOMPUTATION[mode](), "activation_checkpoint", rest)


def _make(made: Any, section: str, values: Mapping[str, Any]) -> Any:
    """A dataclass with these values, or a copy of an instance with them."""
    names = {field.name for field in dataclasses.fields(made)}
    for name in values.keys() - names:
        raise RunError(
            f"torchtitan has no field `{section}.{name}`", "plan again with this version of etude"
        )
    return made(**values) if isinstance(made, type) else dataclasses.replace(made, **values)
