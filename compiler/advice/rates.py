"""Advice on learning rates and other optimizer settings."""

from collections.abc import Iterator
from fractions import Fraction
from math import log

from ...spec.quantity import short
from ...spec.schema import recipe as r
from .. import curves
from ..families.architectures import parameters
from ..program import Scheduled, ScheduledStage
from ..values import LrPiece
from . import Found, rule

LONGEST_WARM_UP = 0.1
"""As a share of the stage."""
COVERED = 0.9
"""A ramp that has covered this share of its range counts as finished."""
JUMP = 2
"""Up to this multiple of the previous learning rate, a step up is no jump."""
PUBLISHED_PEAKS = (
    (14e6, 1e-3),
    (160e6, 6e-4),
    (1.3e9, 2e-4),
    (8e9, 3e-4),
    (70e9, 1.5e-4),
    (405e9, 8e-5),
)
"""Parameters and peak learning rate: Pythia (arXiv:2304.01373), GPT-3 (arXiv:2005.14165, Table
2.1), Llama 3 (arXiv:2407.21783, Table 3)."""
FAR = 10
"""A rule warns if a rate is this factor above or below published rates."""
LARGEST_CLIP = 10
PUBLISHED_BETA2 = 0.95
MOST_TUNING = {"sft": 1e-4, "dpo": 2e-5, "kto": 2e-5}
"""Kind → a peak rate too high for full fine-tuning. Published rates: for sft, 2e-5 (Llama 2 Chat,
arXiv:2307.09288; Zephyr, arXiv:2310.16944) and 5e-6 (Tülu 3 8B, arXiv:2411.15124); for dpo, 5e-7
(Zephyr, Tülu 3); for adapters, 1e-4 and 2e-4 (QLoRA, arXiv:2305.14314)."""
LARGE_TUNED = 3e9
"""Parameters from which `MOST_TUNING` holds: smaller models are tuned at larger rates, SmolLM2 1.7B
at 3e-4 (arXiv:2502.02737)."""
LARGE = 100e6
"""Parameters from which new weights are expected to be warmed up."""


def shown(rate: float, digits: int = 3) -> str:
    """A learning rate as specs write it: 8e-5."""
    return f"{rate:.{digits}g}".replace("e-0", "e-")


def at(stage: ScheduledStage, piece: LrPiece, step: int) -> float:
    """The learning rate of a piece at a step of the stage."""
    position = step if piece.clock == "steps" else stage.tokens_before(step)
    return curves.value(
        piece.shape, piece.start, piece.end, (position - piece.origin) / piece.length
    )


def peak(stage: ScheduledStage) -> float:
    """The largest learning rate of a stage; every piece is monotonic."""
    return max(
        max(at(stage, piece, piece.from_step), at(stage, piece, piece.to_step))
        for piece in stage.lr
    )


def warm_up(stage: ScheduledStage) -> LrPiece | None:
    """The ramp that raises the learning rate at the beginning of a stage."""
    first = stage.lr[0]
    return first if first.shape != "hold" and first.end > first.start else None


def _total(stage: ScheduledStage, piece: LrPiece) -> int:
    return stage.steps if piece.clock == "steps" else stage.tokens


@rule("W612")
def follows_nothing(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    sizes = {length * batch.sequences for _, _, length in stage.lengths for batch in stage.batches}
    if stage.spec.lr_scaling != "none" and len(sizes) == 1:
        yield Found(
            "the rate follows a batch that does not change",
            stage.spec.at("lr_scaling"),
            "remove `lr_scaling`, or write a batch that changes",
        )


@rule("W601")
def long_warm_up(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    piece = warm_up(stage)
    if piece is None or piece.length > _total(stage, piece):
        return
    share = piece.length / _total(stage, piece)
    usual = int(LONGEST_WARM_UP * _total(stage, piece))
    if share > LONGEST_WARM_UP and usual and piece.to_step > LONGEST_WARM_UP * stage.steps + 1:
        yield Found(
            f"the warm-up takes {share:.0%} of this stage",
            stage.spec.at("lr"),
            f"{LONGEST_WARM_UP:.0%} of it is {usual:,} {piece.clock}",
        )


@rule("W602")
def endless_warm_up(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    piece = warm_up(stage)
    if piece and piece.length > _total(stage, piece):
        reached = at(stage, piece, piece.to_step)
        yield Found(
            f"the warm-up is longer than the stage: it ends at {shown(reached)}, not at "
            f"{shown(piece.end)}",
            stage.spec.at("lr"),
            f"the stage has {_total(stage, piece):,} {piece.clock}, the ramp {piece.length:,}",
        )


@rule("W603")
def unfinished_decay(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    piece = stage.lr[-1]
    if piece.end >= piece.start or piece.shape == "hold":
        return
    begun = at(stage, piece, piece.from_step)
    ended = at(stage, piece, stage.steps)
    if begun - ended < COVERED * (begun - piece.end):
        yield Found(
            f"the learning rate does not reach {shown(piece.end)}: the stage ends at "
            f"{shown(ended)}",
            stage.spec.at("lr"),
            f"the ramp is {piece.length:,} {piece.clock} long, the stage only "
            f"{_total(stage, piece):,}: remove `over` to end with the stage",
        )


@rule("W604")
def jump_at_the_beginning(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if not isinstance(stage.spec, r.Train) or stage.parent is None or stage.spec.lr is None:
        return
    before = program.trained(stage.parent)
    if not isinstance(before, ScheduledStage) or not isinstance(before.spec, r.Train):
        return
    last, first = float(before.end.lr), at(stage, stage.lr[0], 0)
    if last > 0 and first > JUMP * last:
        yield Found(
            f"the learning rate jumps from {shown(last)} to {shown(first)} at the beginning of "
            "this stage",
            stage.spec.at("lr"),
            f"raise it gradually: `lr = last -> {shown(first)} for 1% then …`",
        )


def _new(stage: ScheduledStage) -> bool:
    """Whether the stage starts from random weights."""
    return stage.parent is None


def _relative(stage: ScheduledStage) -> bool:
    """Whether rates are relative to the size of a parameter, unlike all published for Adam."""
    return stage.optimizer.own().get("scale_parameter", False)


@rule("W605")
def far_from_published(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if not _new(stage) or _relative(stage):
        return
    size, highest = parameters(stage.model), peak(stage)
    usual = published_peak(size)
    if highest > FAR * usual or highest * FAR < usual:
        yield Found(
            f"the peak learning rate {shown(highest)} is far from what is published for models of "
            f"this size",
            stage.spec.at("lr"),
            f"models of {short(Fraction(size))} parameters are usually trained with about "
            f"{shown(usual, 1)}",
        )


def published_peak(size: float) -> float:
    """The peak learning rate for a number of parameters, interpolated between published ones."""
    below, above = PUBLISHED_PEAKS[0], PUBLISHED_PEAKS[-1]
    for point in PUBLISHED_PEAKS:
        below = point if point[0] <= size else below
    for point in reversed(PUBLISHED_PEAKS):
        above = point if point[0] >= size else above
    if above[0] <= below[0]:
        return below[1] if size >= below[0] else above[1]
    share = log(max(size, below[0]) / below[0]) / log(above[0] / below[0])
    return below[1] * (above[1] / below[1]) ** min(share, 1)


@rule("W606")
def clip_without_effect(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    clip = stage.spec.clip
    if isinstance(clip, float) and clip > LARGEST_CLIP:
        yield Found(
            f"gradients are clipped at a norm of {clip:g}, which they almost never reach",
            stage.spec.at("clip"),
            "write `clip = 1.0`",
        )


@rule("W607")
def decays_too_early(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """A ramp to 0 followed by a stretch at 0."""
    piece = stage.lr[-1]
    if piece.shape == "hold":
        idle = piece.to_step - piece.from_step if piece.start == 0 else 0
    else:
        end = piece.origin + piece.length
        reached = next(
            (s for s in (piece.from_step, *_edges(stage, piece)) if _clock(stage, piece, s) >= end),
            stage.steps,
        )
        idle = stage.steps - reached if piece.end == 0 else 0
    if idle > max(stage.steps // 100, 1):
        yield Found(
            f"the learning rate is 0 for the last {idle:,} of {stage.steps:,} steps",
            stage.spec.at("lr"),
            "let the ramp end with the stage, or end the stage there",
        )


def _clock(stage: ScheduledStage, piece: LrPiece, step: int) -> int:
    return step if piece.clock == "steps" else stage.tokens_before(step)


def _edges(stage: ScheduledStage, piece: LrPiece) -> range:
    width = max((piece.to_step - piece.from_step) // 200, 1)
    return range(piece.from_step, piece.to_step + 1, width)


@rule("N601")
def no_warm_up(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if _new(stage) and warm_up(stage) is None and parameters(stage.model) >= LARGE:
        first = at(stage, stage.lr[0], 0)
        yield Found(
            f"new weights start at the learning rate {shown(first)}, without a warm-up",
            stage.spec.at("lr"),
            f"write `lr = 0 -> {shown(first)} for 1% then …`",
        )


@rule("N602")
def no_weight_decay(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    optimizer = stage.spec.optimizer
    if not isinstance(optimizer, r.Optimizer) or optimizer.kind == "adafactor":
        return  # whose default is 0
    if _new(stage) and optimizer.weight_decay == 0:
        yield Found(
            "pre-training without weight decay",
            optimizer.at("weight_decay"),
            "write `weight_decay = 0.1`",
        )


@rule("N603")
def slow_second_moment(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    optimizer = stage.spec.optimizer
    if _new(stage) and isinstance(optimizer, r.Optimizer) and optimizer.betas[1] > 0.99:
        yield Found(
            f"the optimizer's second moment decays slowly: beta2 is {optimizer.betas[1]:g}",
            optimizer.at("betas"),
            f"write `betas = [0.9, {PUBLISHED_BETA2}]`",
        )


@rule("W608")
def rate_of_an_adapter(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """Full fine-tuning of a large model at a rate typical of LoRA or of tiny models."""
    size, highest = parameters(stage.model), peak(stage)
    limit = MOST_TUNING.get(stage.spec.kind)
    if limit is None or size < LARGE_TUNED or highest < limit or _relative(stage):
        return
    usual = "1e-5 to 2e-5" if stage.spec.kind == "sft" else "5e-7 to 5e-6"
    yield Found(
        f"{shown(highest)} is a rate for adapters or tiny models, and all "
        f"{short(Fraction(size))} parameters are trained here",
        stage.spec.at("lr"),
        f"models of this size are fine-tuned at about {usual}",
    )
