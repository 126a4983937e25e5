"""Costs of the stages and jobs of a program."""

from collections.abc import Sequence
from functools import lru_cache
from math import fsum, isfinite
from typing import Any

from ...spec.quantity import Quantity
from ...spec.record import Record, replace
from ...spec.schema import recipe as r
from ...spec.schema.number_kinds import EVERY, SECONDS
from ..families.adapters import adapter_parameters
from ..families.architectures import parameters
from ..families.low_precision import converted, share
from ..pipelines import pipelining, told, told_split
from ..program import Form, Hardware, ModelStage, ScheduledStage, Segment
from ..values import BatchPiece, ModelShape
from .digits import digits
from .estimate import LOSS_CHUNKS, Estimate, Setting, estimate
from .evaluations import evaluations
from .failures import with_failures
from .hardware import gpu
from .reading import PIECE

RESTART = 600.0
"""Seconds from a failure until training continues, if the cluster does not specify it."""


class Work(Record):
    """What determines the step time of a stage, apart from its placement.

    Attributes:
        split: of pipelines, if `torchtitan` sets it: `first_less` and `last_less` by name.
        reshard, offload: what else it sets, as in `Setting`.
        compiled: whether it leaves torch.compile on.
        adapters, averaged, muon, adafactor, lion, dispatcher, asked, likely, scores: as in
            `Setting`.
    """

    model: ModelShape
    hardware: Hardware
    precision: r.Precision
    split: tuple[tuple[str, int], ...] = ()
    reshard: str = "default"
    offload: bool = False
    compiled: bool = True
    adapters: float = 0.0
    averaged: bool = False
    muon: int = 0
    asked: bool = False
    likely: bool = False
    scores: bool = False
    adafactor: bool = False
    lion: bool = False
    dispatcher: str = "all_to_all"

    @classmethod
    def of(cls, stage: ModelStage) -> "Work":
        """The work of a stage."""
        adapter, of = getattr(stage.spec, "adapter", None), stage.optimizer
        asked = not getattr(stage.spec, "uniform", True)
        return cls(
            model=stage.model,
            hardware=stage.hardware,
            precision=stage.precision,
            split=tuple(told_split(stage).items()),
            reshard=told(stage, "parallelism").get("fsdp_reshard_after_forward", "default"),
            offload=told(stage, "training").get("enable_cpu_offload", False),
            compiled=told(stage, "compile").get("enable", True),
            adapters=adapter_parameters(adapter, stage.model) / parameters(stage.model)
            if adapter
            else 0.0,
            averaged=getattr(stage.spec, "averages", False),
            asked=asked,
            likely=getattr(stage.spec, "likely", False),
            scores=asked and not stage.spec.writes_text,
            muon=of.own()["ns_steps"] if of.kind == "muon" else 0,
            adafactor=of.kind == "adafactor",
            lion=of.kind == "lion",
            dispatcher=stage.settings.get("dispatcher") or "all_to_all",
        )


def segment_estimate(stage: ModelStage, segment: Form, sequences: int) -> Estimate | None:
    """The estimate of a step of a segment; None if the device is unknown.

    Args:
        sequences: of the global batch.
    """
    return step_estimate(Work.of(stage), segment, stage.recompute, sequences)


def step_estimate(work: Work, form: Form, recompute: str, sequences: int) -> Estimate | None:
    """The estimate of a step; None if the device is unknown.

    Args:
        sequences: of the global batch.
    """
    setting = step_setting(work, form, recompute, sequences)
    return _estimate(setting) if setting else None


def step_setting(work: Work, form: Form, recompute: str, sequences: int) -> Setting | None:
    """What a step is estimated by; None if the device is unknown."""
    device = gpu(work.hardware.device)
    if device is None:
        return None
    return Setting(
        model=work.model,
        resources=form.resources,
        seq_len=form.seq_len,
        micro_batch=form.micro_batch,
        sequences=sequences,
        recompute=recompute,
        gpus_per_node=work.hardware.per_node,
        gpu=device,
        precision=f"{work.precision.kind} {work.precision.scaling}".rstrip(),
        low=share(work.precision, work.model) if work.precision.low else 1.0,
        low_output="output" in converted(work.precision, work.model),
        eager=not work.compiled or pipelining(form.resources).split,
        plain_loss=work.asked or not work.compiled,
        chunks=_chunks(work, form),
        asked=work.asked,
        likely=work.likely,
        scores=work.scores,
        reshard=work.reshard,
        offload=work.offload,
        adapters=work.adapters,
        averaged=work.averaged,
        muon=work.muon,
        adafactor=work.adafactor,
        lion=work.lion,
        dispatcher=work.dispatcher,
    )


def _chunks(work: Work, form: Form) -> float:
    """The parts in which logits are made; those of further tokens are made whole."""
    if work.asked:
        return max(form.micro_batch * form.seq_len / PIECE, 1)
    return 1 if work.model.mtp else LOSS_CHUNKS


@lru_cache(maxsize=4096)
def _estimate(setting: Setting) -> Estimate:
    return estimate(setting)


def segment_batch(stage: ScheduledStage, segment: Segment) -> list[BatchPiece]:
    """The pieces of the batch within a segment."""
    start, stop = segment.from_step, segment.to_step
    return [
        replace(b, from_step=max(b.from_step, start), to_step=min(b.to_step, stop))
        for b in stage.batches
        if b.from_step < stop and b.to_step > start
    ]


def job_costs(stage: ModelStage, segment: Segment, batch: Sequence[BatchPiece]) -> dict[str, Any]:
    """The estimated fields of a job's `Cost`, with the time of evaluations inside it; {} if the
    device is unknown.

    Apart from overlapped communication, a step's time is affine in its batch. So for a ramp with
    many levels, only the smallest and the largest are estimated and the rest interpolated.
    """
    last = segment_estimate(stage, segment, batch[-1].sequences)
    device = gpu(stage.hardware.device)
    if last is None or device is None:
        return {}
    sizes = sorted({piece.sequences for piece in batch})
    low, high = (segment_estimate(stage, segment, size) for size in (sizes[0], sizes[-1]))
    assert low is not None
    assert high is not None
    slope = (high.seconds - low.seconds) / max(sizes[-1] - sizes[0], 1)
    seconds = fsum(
        (piece.to_step - piece.from_step) * (low.seconds + (piece.sequences - sizes[0]) * slope)
        for piece in batch
    )
    # A forward pass is about a third of a step.
    times = 1 + getattr(stage.spec, "forwards", 0) / 3
    seconds *= float(times)
    seconds += evaluations(stage, segment).seconds
    step = {part: of * float(times) for part, of in last.time.items()}
    lost = expected(stage, seconds, fsum(step.values()))
    hours = seconds / 3600 * stage.hardware.world_size
    price = stage.hardware.price
    return {
        "memory": {part: round(of) for part, of in high.memory.items()},
        "gpu_memory": device.memory,
        "step_seconds": {part: digits(of) for part, of in step.items()},
        "seconds": digits(seconds),
        "expected_seconds": digits(lost) if lost is not None and isfinite(lost) else None,
        "gpu_hours": digits(hours),
        "energy_kwh": digits(hours * device.watts / 1000),
        "price": None if price is None else digits(hours * price),
        "mfu": digits(last.mfu / float(times)),
        "tokens_per_second": digits(last.tokens_per_second / float(times)),
    }


def expected(
    stage: ModelStage, seconds: float, step: float, between: float | None = None
) -> float | None:
    """The time of a job including failures of its cluster; None if their rate is unknown.

    Args:
        seconds: the job's time without failures.
        step: the time of a step.
        between: seconds between two checkpoints, if not the stage's.
    """
    hardware = stage.hardware
    if hardware.mtbf is None:
        return None
    if between is None:
        every: Quantity = getattr(stage.spec, "checkpoint", None) or EVERY
        between = float(every.value) * SECONDS.get(every.unit, step)
    return with_failures(
        seconds,
        between=between,
        save=hardware.save or 0.0,
        restart=RESTART if hardware.restart is None else hardware.restart,
        mtbf=hardware.mtbf,
    )
