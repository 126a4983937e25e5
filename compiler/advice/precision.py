"""Advice on products in 8 and 4 bits."""

from collections.abc import Iterator

from ..families.low_precision import KERNELS
from ..pipelines import pipelining
from ..program import Scheduled, ScheduledStage
from ..torchtitan.told import is_compiled
from . import Found, rule


@rule("W663")
def low_precision_without_compilation(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """The conversion of tensors is only fast where it is compiled into the kernels around it."""
    told = stage.settings["torchtitan"]
    given = stage.spec.precision or stage.spec.torchtitan or stage.spec.cluster
    if not stage.precision.low or stage.hardware.device == "cpu" or not given:
        return
    apart = any(pipelining(segment.resources).split for segment in stage.segments)
    if apart or not is_compiled(stage.hardware.torchtitan, told):
        yield Found(
            f"`{stage.precision.kind}` without a compiled model is usually slower than bf16",
            stage.spec.at("precision" if stage.spec.precision else "torchtitan"),
            "take a schedule of the pipeline that can be compiled, or write `precision = bf16`"
            if apart
            else "compile the model, or write `precision = bf16`",
        )


@rule("W664")
def experts_stay_in_bf16(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    precision = stage.precision
    if not stage.spec.precision or not precision.low or stage.model.experts is None:
        return
    if KERNELS[precision.kind].experts or "experts" in precision.except_:
        return
    out = ", ".join(("experts", *precision.except_))
    yield Found(
        f"the experts stay in bf16: in torchtitan 0.3, `{precision.kind}` is for other layers",
        stage.spec.at("precision"),
        f"write `mxfp8`, which converts them on Blackwell, or say so: `except = [{out}]`",
    )
