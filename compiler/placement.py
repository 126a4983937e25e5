"""Placements by hand or data-parallel by default: meshes and micro-batches."""

from collections.abc import Iterable, Mapping
from math import gcd

from ..spec.diagnostics import Report
from ..spec.source import Span
from .program import Hardware
from .values import Architecture, Resources

CPU_MICRO_BATCH_TOKENS = 8192
"""A CPU rank works on up to so many tokens at a time where the spec does not say."""
CPU_MICRO_BATCH_RECORDS = 4096
"""The same of records, whose rows are padded to the longest one: the fewer, the less padding."""


def mesh(
    hardware: Hardware, degrees: Mapping[str, int], model: Architecture, span: Span | None,
    report: Report,
) -> Resources | None:  # fmt: skip
    """The device mesh of a placement: data parallelism takes what the other degrees leave.

    Sharded data parallelism (FSDP2) is the default; `replicate` makes it hybrid.
    """
    tensor, context, pipeline = (degrees.get(n, 1) for n in ("tensor", "context", "pipeline"))
    world = hardware.world_size
    if degrees.get("expert", 1) > 1:
        report.add("E431", f"{model.family} has no experts to place", span,
                   help="leave `expert` out")  # fmt: skip
        return None
    fixed = tensor * context * pipeline
    if world % fixed:
        report.add(
            "E432",
            f"tensor {tensor} × context {context} × pipeline {pipeline} = {fixed} does not divide "
            f"{world} ranks",
            span, help=f"the nearest that does is {_nearest_divisor(world, fixed)}",
        )  # fmt: skip
        return None
    data = world // fixed
    replicate = degrees.get("replicate", 1)
    if "shard" in degrees and "replicate" not in degrees and data % degrees["shard"] == 0:
        replicate = data // degrees["shard"]
    shard = degrees.get("shard", data // replicate)
    if replicate * shard != data:
        report.add(
            "E432",
            f"replicate {replicate} × shard {shard} is not the {data} data-parallel ranks that "
            f"tensor, context and pipeline leave of {world}",
            span, help=f"leave `shard` out: it is {data // replicate or 1} by default",
        )  # fmt: skip
        return None
    for what, number in (("heads", model.heads), ("kv_heads", model.kv_heads)):
        if number % tensor:
            report.add(
                "E433", f"tensor {tensor} does not divide the model's {number} {what}", span,
                help=f"the nearest that does is {_nearest_divisor(number, tensor)}",
            )  # fmt: skip
            return None
    if pipeline > model.layers:
        report.add(
            "E433", f"pipeline {pipeline} is more than the model's {model.layers} layers", span
        )
        return None
    return Resources(
        world_size=world, device=hardware.device, replicate=replicate, shard=shard,
        tensor=tensor, context=context, pipeline=pipeline,
    )  # fmt: skip


def data_parallel(resources: Resources) -> int:
    return resources.replicate * resources.shard


def micro_batch(
    resources: Resources, wanted: int | None, seq_len: int, batches: Iterable[int], room: int
) -> int:
    """Sequences that a data-parallel rank works on at a time (torchtitan's local batch).

    Where the spec does not say: one on a GPU, all of them in a pipeline (which cuts them itself),
    and on a CPU the most that divide every batch and have at most `room` tokens.
    """
    if wanted:
        return wanted
    each = 0
    for sequences in batches:
        each = gcd(each, sequences // data_parallel(resources))
    each = max(each, 1)
    if resources.pipeline > 1:
        return each
    if resources.device != "cpu":
        return 1
    most = max(room // seq_len, 1)
    return max(d for d in range(1, min(each, most) + 1) if each % d == 0)


def _nearest_divisor(number: int, wish: int) -> int:
    divisors = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    divisors += [number // d for d in divisors]
    return min(divisors, key=lambda d: (abs(d - wish), d))
