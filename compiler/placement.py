"""Explicit placements, and data parallelism by default: meshes and micro-batches."""

from collections.abc import Iterable, Mapping
from itertools import product
from math import fsum, gcd, lcm, log, prod

from ..spec.findings.diagnostics import Report
from ..spec.quantity import counted
from ..spec.record import replace
from ..spec.source import Span
from .families.architectures import dense_layers
from .pipelines import (
    DEFAULT,
    PIPELINES,
    USUAL,
    Split,
    fullest,
    pipelining,
    split_of,
)
from .program import Hardware, ModelStage
from .tensor_widths import shares_keys, tensor_widths
from .values import ROUTER_LOSSES, ModelShape, Resources

Degrees = Mapping[str, int | str]
"""A placement as specs write it: degrees by name, and the `schedule` of a pipeline."""


def written(placement: Degrees) -> str:
    """A placement as text of a spec."""
    degrees = ", ".join(f"{name} {degree}" for name, degree in placement.items())
    return f"{{ {degrees} }}" if degrees else "{ }"


CPU_MICRO_BATCH_TOKENS = 8192
"""The most tokens that a CPU rank processes at a time, if the spec does not say."""


MASK_BLOCK = 128
"""Tokens in a block of flex attention's mask (torch, `_DEFAULT_SPARSE_BLOCK_SIZE`)."""

Wrong = tuple[str, str] | None
"""What is wrong with a mesh, and the way out; None if nothing is."""


def mesh(
    hardware: Hardware,
    placement: Degrees,
    model: ModelShape,
    span: Span | None,
    report: Report,
) -> Resources | None:
    """The device mesh of a placement: data parallelism takes the ranks that other degrees leave.

    Sharded data parallelism (FSDP2) is the default; `replicate` makes it hybrid.
    """
    degrees = {name: of for name, of in placement.items() if isinstance(of, int)}
    if degrees.get("expert", 1) > 1 and model.experts is None:
        report.add("E431", "this model has no experts to place", span, help="remove `expert`")
        return None
    found = _shared_out(hardware, degrees, span, report)
    if found is None:
        return None
    found = _pipelined(found, placement)
    rules = (
        ("E487", _context),
        ("E488", _further),
        ("E433", _widths),
        ("E483", _schedule),
        ("E433", _pipeline),
        ("E484", _split),
        ("E433", _experts),
    )
    for code, rule in rules:
        if wrong := rule(model, found):
            report.add(code, wrong[0], span, help=wrong[1])
            return None
    return found


def no_graphs(stage: ModelStage, resources: Resources) -> str | None:
    """Why the jobs of a stage cannot be replayed as CUDA graphs; None if they can.

    torchtitan records one micro-batch and then replays its kernels: shapes stay the same, and no
    Python runs (torchtitan 0.3, `distributed/cudagraph.py`; `_validate_cuda_graphs` of
    `trainer.py` on pipelines and experts).
    """
    if not getattr(stage.spec, "uniform", False):
        return "its rows are of different lengths"
    if stage.settings.get("z_loss"):
        return "the figures of `z_loss` are added up in Python"
    if any(stage.settings.get(name) for name in ROUTER_LOSSES):
        return "the losses of its routers are kept from one micro-batch to the next in Python"
    if stage.model.mtp:
        return "the loss of further tokens is added up in Python"
    if stage.settings.get("attention") == "varlen":
        return "`varlen` takes as many lengths as a row has documents"
    if resources.pipeline > 1:
        return "torchtitan has none of pipelines"
    if resources.expert > 1 and stage.settings.get("dispatcher") != "minimal_async_ep":
        return "with `expert`, the CPU has to know how many tokens every expert gets"
    return None


def _pipelined(mesh: Resources, placement: Degrees) -> Resources:
    """The mesh with its pipeline's schedule and split. A schedule that needs several stages a rank
    has two of them, unless `interleave` says otherwise (as torchtitan has)."""
    schedule = str(placement.get("schedule", DEFAULT))
    several = not PIPELINES[schedule].titan and "interleave" not in placement
    first, last = (placement.get(name, 1) for name in ("first_less", "last_less"))
    if (schedule, first, last) == (DEFAULT, 1, 1):
        return mesh
    return replace(
        mesh,
        schedule=schedule,
        interleave=2 if several and mesh.pipeline > 1 else mesh.interleave,
        first_less=first,
        last_less=last,
    )


def _shared_out(
    hardware: Hardware, degrees: Mapping[str, int], span: Span | None, report: Report
) -> Resources | None:
    """The ranks divided among the degrees; None, with a report, if they do not divide."""
    tensor, context, pipeline = (degrees.get(n, 1) for n in ("tensor", "context", "pipeline"))
    world, fixed = hardware.world_size, tensor * context * pipeline
    if world % fixed:
        report.add(
            "E432",
            f"tensor {tensor} × context {context} × pipeline {pipeline} = {fixed} does not divide "
            f"{world} ranks",
            span,
            help=_nearest_mesh(world, {"tensor": tensor, "context": context, "pipeline": pipeline}),
        )
        return None
    data = world // fixed
    replicate = degrees.get("replicate", 1)
    if "shard" in degrees and "replicate" not in degrees and data % degrees["shard"] == 0:
        replicate = data // degrees["shard"]
    shard = degrees.get("shard", data // replicate)
    if replicate * shard != data:
        report.add(
            "E432",
            f"replicate {replicate} × shard {shard} is not {data}, the number of data-parallel "
            f"ranks that tensor, context and pipeline leave of {world}",
            span,
            help=_nearest_data(data, replicate),
        )
        return None
    return Resources(
        world_size=world,
        device=hardware.device,
        replicate=replicate,
        shard=shard,
        tensor=tensor,
        context=context,
        pipeline=pipeline,
        interleave=degrees.get("interleave", 1),
        expert=degrees.get("expert", 1),
        per_node=min(hardware.per_node, world),
    )


def _context(model: ModelShape, mesh: Resources) -> Wrong:
    """Context parallelism where torchtitan does not have it (0.3, `apply_cp_to_forward`: of flex
    attention and of SDPA without documents; the engine's attention for CPUs is neither)."""
    if mesh.context == 1:
        return None
    if model.parts and model.parts.alibi:
        return (
            "context parallelism reorders tokens, whose distances ALiBi goes by",
            "write `tensor` or `pipeline` instead of `context`",
        )
    if model.parts and model.parts.linear_heads:
        return (
            "context parallelism cuts sequences, along which the state of linear attention runs",
            "write `tensor` or `pipeline` instead of `context`",
        )
    if mesh.device != "cpu":
        return None
    return "context parallelism needs GPUs, but this stage runs on CPUs", "remove `context`"


def _further(model: ModelShape, mesh: Resources) -> Wrong:
    """Where torchtitan trains no modules that predict further tokens (0.3, `MTPDecoder.Config`)."""
    apart = [name for name in ("pipeline", "context") if getattr(mesh, name) > 1]
    if model.mtp > 1 and mesh.tensor > 1:
        return (
            # A module's norm gathers the sequence for the output, and the next takes it cut.
            f"torchtitan predicts one further token with tensor parallelism, and not {model.mtp}",
            "write `mtp = 1` in the model, or `expert` or `replicate` instead of `tensor`",
        )
    if not model.mtp or not apart:
        return None
    named = " and ".join(f"`{name}`" for name in apart)
    return (
        f"torchtitan predicts no further tokens with {' and '.join(apart)} parallelism",
        f"write `tensor`, `expert` or `replicate` instead of {named}, or `mtp_loss = 0`, which "
        "leaves the modules out",
    )


def _widths(model: ModelShape, mesh: Resources) -> Wrong:
    """The dimensions of a model that tensor parallelism does not divide."""
    tensor, expert = mesh.tensor, mesh.expert
    keys = model.kv_heads
    if shares_keys(model) and keys % tensor and tensor % keys:
        return (
            f"tensor {tensor} neither divides the model's {keys} kv_heads nor is a multiple of "
            "them",
            f"the nearest that divides them is {_nearest(_divisors(keys), tensor)}",
        )
    for what, number in tensor_widths(model, expert).items():
        if number % tensor:
            near = _nearest_tensor(model, expert, mesh.world_size, tensor)
            return (
                f"tensor {tensor} does not divide the model's {number} {what}",
                f"the nearest that divides it is {near}",
            )
    return None


def _schedule(_: ModelShape, mesh: Resources) -> Wrong:
    """Why a schedule does not go with the stages of a rank."""
    pipeline, each, of = mesh.pipeline, mesh.interleave, pipelining(mesh)
    name = f"`schedule {mesh.schedule}`"
    if pipeline == 1 and mesh.schedule != DEFAULT:
        return f"{name} needs a pipeline", "write `pipeline 2`, or remove it"
    if pipeline == 1 and split_of(mesh) != USUAL:
        less = "first_less" if mesh.first_less != 1 else "last_less"
        return f"`{less}` needs a pipeline", "write `pipeline 2`, or remove it"
    if of.two and each != 2:
        return (
            f"{name} puts two stages on each rank, but interleave is {each}",
            "remove `interleave`, or write `interleave 2`",
        )
    if each == 1 and not of.titan:
        return (
            f"{name} needs several stages on each rank, but interleave is 1",
            "remove `interleave`, or write `interleave 2`",
        )
    if each > 1 and not of.several:
        return (
            f"{name} has one stage on each rank, but interleave is {each}",
            "remove `interleave`, or write `schedule looped_bfs`, which is the same with several",
        )
    return None


def _split(model: ModelShape, mesh: Resources) -> Wrong:
    """Why the layers cannot be split as `first_less` and `last_less` say."""
    stages, split = mesh.pipeline * mesh.interleave, split_of(mesh)
    if mesh.pipeline == 1 or split == USUAL:
        return None
    each = (model.layers + sum(split)) // stages
    for name, less in (("first_less", split[0]), ("last_less", split[1])):
        if less > each:
            return (
                f"{name} {less} is more than the {counted(each, 'layers')} of a stage: "
                f"{counted(model.layers, 'layers')} and what the first and the last stage have "
                f"less, over {stages} stages",
                f"the nearest that fits is {name} {_most_less(model.layers, stages, split, name)}",
            )
    return None


def _most_less(layers: int, stages: int, split: Split, name: str) -> int:
    """The most layers that one end of a pipeline may have less, with the other as it is."""
    other = min(split[1 if name == "first_less" else 0], layers // stages)
    fits = (n for n in range(max(split), -1, -1) if max(n, other) <= (layers + n + other) // stages)
    return next(fits, 0)


def _pipeline(model: ModelShape, mesh: Resources) -> Wrong:
    """Why a model cannot be cut into the stages of a pipeline."""
    pipeline = mesh.pipeline
    if pipeline > 1 and model.tied:
        return (
            "the model ties embedding and output, which a pipeline would separate",
            "remove `pipeline`, or write `tied = false` in the model",
        )
    if mesh.interleave > 1 and (wrong := _uneven_stages(model.layers, mesh)):
        return wrong
    if pipeline > model.layers:
        near = max(d for d in _divisors(mesh.world_size) if d <= model.layers)
        return (
            f"pipeline {pipeline} is more than the model's {counted(model.layers, 'layers')}",
            f"the nearest that fits is {near}",
        )
    return None


def _experts(model: ModelShape, mesh: Resources) -> Wrong:
    """Why a model's experts cannot be placed."""
    if model.experts is None:
        return None
    count, expert = model.experts.count, mesh.expert
    room = gcd(mesh.shard * mesh.context * mesh.tensor, count)
    if room % expert:
        return (
            f"expert {expert} does not divide both the {count} experts and the shard {mesh.shard} "
            f"× context {mesh.context} × tensor {mesh.tensor} ranks that they are placed on",
            f"the nearest that does is {_nearest(_divisors(room), expert)}",
        )
    if uneven := _uneven_experts(model, mesh):
        return (
            f"{count} experts are fewer than the ranks that have a part of them, and {uneven}",
            "use more ranks for `expert` or `pipeline`, which leaves fewer for FSDP",
        )
    return None


def interleaves(
    layers: int, pipeline: int, split: Split = USUAL, *, other: bool = False
) -> list[int]:
    """Possible numbers of pipeline stages per rank, ascending; 1 is not interleaved.

    Args:
        other: under another schedule than the default; two are then always possible if there are
            enough layers.
    """
    if pipeline == 1:
        return [1]
    most = (layers + sum(split)) // pipeline
    found = (
        n for n in range(2, most + 1) if (other and n == 2) or fullest(layers, pipeline, n, split)
    )
    return [1, *found]


def _uneven_stages(layers: int, mesh: Resources) -> Wrong:
    """What is wrong with an interleaved pipeline, and the way out."""
    pipeline, interleave, split = mesh.pipeline, mesh.interleave, split_of(mesh)
    if pipeline == 1:
        return f"interleave {interleave} needs a pipeline", "write `pipeline 2`, or remove it"
    possible = interleaves(layers, pipeline, split, other=mesh.schedule != DEFAULT)
    if interleave in possible:
        return None
    near = _nearest(possible, interleave)
    if mesh.schedule != DEFAULT and near == 1:
        near_pipeline = _nearest(
            (d for d in _divisors(pipeline) if d == 1 or 2 * d <= layers + sum(split)), pipeline
        )
        way = f"the nearest possible is pipeline {near_pipeline}"
        way = way if near_pipeline > 1 else "remove `schedule`"
    else:
        way = f"the nearest possible is interleave {near}" if near > 1 else "remove `interleave`"
    ends = {(1, 1): ", the embedding and the output", (0, 0): ""}.get(
        split, f", with {split[0]} less in the first stage and {split[1]} in the last,"
    )
    return (
        f"{counted(layers, 'layers')}{ends} cannot be divided into "
        f"pipeline {pipeline} × interleave {interleave} = {pipeline * interleave} stages",
        way,
    )


def rounds(resources: Resources, micro_batch: int) -> int | None:
    """The rounds in which an interleaved pipeline processes a rank's sequences; None if they would
    differ (torch 2.14, `ScheduleInterleaved1F1B`)."""
    found = max(micro_batch // resources.pipeline, 1)
    return None if micro_batch % found else found


def cut_inside(count: int, resources: Resources) -> int | None:
    """The number of ranks over which FSDP splits each of `count` experts along a dimension; None if
    it distributes whole experts.

    It splits them if the mesh has more ranks than there are experts. With expert parallelism this
    is the mesh of shard, context and tensor; without it, replicas count too (torchtitan 0.3,
    `distributed/fsdp.py`).
    """
    ranks = resources.shard * resources.context
    if resources.expert > 1:
        over = ranks * resources.tensor // resources.expert
        return over if over * resources.expert > count else None
    return ranks if resources.replicate * ranks * resources.tensor > count else None


def _uneven_experts(model: ModelShape, resources: Resources) -> str | None:
    """The dimension of experts that FSDP cannot split evenly, in words."""
    experts = model.experts
    if experts is None or dense_layers(model) == model.layers:
        return None
    over = cut_inside(experts.count, resources)
    if over is None:
        return None
    # With biases, the two products before the gate are fused.
    width = experts.ffn * (2 if model.biased else 1)
    width //= 1 if resources.expert > 1 else resources.tensor
    for what, side in (("their width", width), ("the model's width", model.dim)):
        if side % over:
            return f"{what} of {side} cannot be divided into {over} parts"
    return None


def data_parallel(resources: Resources) -> int:
    return resources.replicate * resources.shard


def micro_batch(
    resources: Resources, wanted: int | None, seq_len: int, batches: Iterable[int], room: int
) -> int:
    """Sequences that a data-parallel rank processes at a time (torchtitan's local batch).

    Unless the spec says otherwise: one on a GPU, all of them in a pipeline (which splits them
    itself), and on a CPU the most that divide every batch and have at most `room` tokens.
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


def sequence_divisor(resources: Resources) -> int:
    """The number that a sequence's length has to be a multiple of.

    Sequence parallelism splits it among tensor-parallel ranks, context parallelism into two parts
    per rank (torchtitan 0.3, `trainer.py`). Flex attention, used on GPUs, splits its mask in whole
    blocks among context-parallel ranks (torch, `_create_cp_block_mask`).
    """
    context = resources.context
    divisor = resources.tensor * (2 * context if context > 1 else 1)
    if context > 1 and resources.device != "cpu":
        divisor = lcm(divisor, context * MASK_BLOCK)
    return divisor


def flat(resources: Resources) -> Resources:
    """The same ranks for reading data without learning: all of them have the layers and the tokens
    of a sequence, and the rest of the tensor degree shards."""
    if resources.pipeline == resources.context == 1:
        return resources
    return replace(
        resources,
        shard=resources.world_size // (resources.replicate * resources.tensor),
        context=1,
        pipeline=1,
        interleave=1,
        schedule=DEFAULT,
        first_less=1,
        last_less=1,
    )


def _divisors(number: int) -> list[int]:
    divisors = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*divisors, *(number // d for d in divisors)})


def _nearest(numbers: Iterable[int], wish: int) -> int:
    return min(numbers, key=lambda number: (abs(number - wish), number))


def _nearest_tensor(model: ModelShape, expert: int, world: int, wish: int) -> int:
    """The nearest degree of tensor parallelism that the model and the ranks permit."""
    common = gcd(*tensor_widths(model, expert).values())
    return _nearest(_divisors(gcd(common, world)), wish)


def _nearest_mesh(world: int, requested: Mapping[str, int]) -> str:
    """The nearest degrees that divide the ranks, and the nearest numbers of ranks that divide."""
    size = 1
    for degree in requested.values():
        size *= degree
    given = {name: degree for name, degree in requested.items() if degree > 1}
    found: dict[str, int] = {}
    if len(given) == 1:
        found = {name: _nearest(_divisors(world), degree) for name, degree in given.items()}
    else:
        ways = product(*(_divisors(world) for _ in given))
        best = min(
            (way for way in ways if world % prod(way) == 0),
            key=lambda way: (
                fsum(abs(log(d / w)) for d, w in zip(way, given.values(), strict=True)),
                way,
            ),
        )
        found = dict(zip(given, best, strict=True))
    shown = " × ".join(f"{name} {degree}" for name, degree in found.items())
    low = world // size * size
    ranks = f"{low} or {low + size}" if low else f"{size}"
    return f"the nearest that fits is {shown}; the nearest number of ranks is {ranks}"


def _nearest_data(data: int, replicate: int) -> str:
    if data % replicate == 0:
        return f"remove `shard`: it is {data // replicate} by default"
    near = _nearest(_divisors(data), replicate)
    return f"the nearest is replicate {near} × shard {data // near}"
