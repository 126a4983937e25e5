"""Matrix products in 8 and 4 bits: which of a model's layers have them, and what fits them."""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import NamedTuple

from ...spec.quantity import counted
from ...spec.schema.precision import PARTS, Precision
from ..values import ModelShape, Resources
from . import FAMILIES
from .architectures import dense_layers, is_linear, mixing
from .weights import Weight


class Kernels(NamedTuple):
    """What the matrix products of a precision need (torchtitan 0.3, `components/quantization`;
    torchao 0.18, `prototype/moe_training`).

    Attributes:
        widths: both widths of a rank's part of a layer are multiples of this.
        tokens: tokens that a rank multiplies at a time are a multiple of this.
        experts: the same as `widths` for experts; 0: experts stay in bf16. torchtitan has no fp4
            for them, and with its fp8 their weights are saved as a class of torchao's, which
            checkpoints cannot be read from.
    """

    widths: int
    tokens: int
    experts: int


KERNELS = {
    "fp8": Kernels(widths=16, tokens=16, experts=0),
    "mxfp8": Kernels(widths=32, tokens=32, experts=128),
    "nvfp4": Kernels(widths=128, tokens=128, experts=0),
}
LOSS_CHUNKS = 8
"""Chunks of a micro-batch for which torchtitan's chunked loss computes logits on GPUs."""
Wrong = tuple[str, str] | None
"""What is wrong, and the way out; None if nothing is."""


def products(model: ModelShape) -> dict[str, list[Weight]]:
    """The matrices of each part of a model; those of layers are of one layer.

    The output of attention with biases is missing: torchtitan has a class of its own for it, which
    adds its bias once with tensor parallelism, and which the conversion would replace.
    """
    family, mixed = FAMILIES[model.family], model.experts is not None
    layer = list(family.mixture(model)) if mixed else []
    every = {is_linear(model, layer): layer for layer in range(model.layers)}
    found = {
        "attention": [
            weight
            for one in sorted(every.values())
            for weight in mixing(model, one)
            if _is_product(model, weight)
        ],
        "feed_forward": list(family.feed_forward(model)) if dense_layers(model) else [],
        "experts": [weight for weight in layer if weight.part == "experts"],
        # Not their gate, of one row.
        "shared_experts": [w for w in layer if w.part == "shared" and w.cut is not None],
        "router": [weight for weight in layer if weight.part == "router"],
        "output": [Weight((model.vocab, model.dim), 0)],
    }
    matrices = {
        part: [w for w in weights if len(w.shape) == (3 if part == "experts" else 2)]
        for part, weights in found.items()
    }
    return {part: weights for part, weights in matrices.items() if weights}


def converted(precision: Precision, model: ModelShape) -> list[str]:
    """The parts of a model that are computed in 8 or 4 bits, in the order of `PARTS`."""
    if not precision.low:
        return []
    has, out = products(model), set(precision.except_)
    if not KERNELS[precision.kind].experts:
        out.add("experts")
    return [part for part in PARTS if part in has and part not in out]


def layers(precision: Precision, model: ModelShape) -> range:
    """The layers that are not kept in bf16 as a whole, counted from 0."""
    return range(precision.bf16_first, model.layers - precision.bf16_last)


@lru_cache(maxsize=256)
def share(precision: Precision, model: ModelShape) -> float:
    """The share of the layers' products of a token that are in 8 or 4 bits."""
    parts, inside, experts = converted(precision, model), layers(precision, model), model.experts
    low = every = 0
    for part, weights in products(model).items():
        size = sum(prod(weight.shape) for weight in weights)
        if part == "experts" and experts:
            size = size // experts.count * experts.active
        if part == "output":
            continue
        every += _elements(part, size, model, range(model.layers))
        low += _elements(part, size, model, inside) if part in parts else 0
    return low / every


def _elements(part: str, size: int, model: ModelShape, among: range) -> int:
    """The elements of a part's matrices in some layers, of which each has `size`."""
    return _mixing(model, among) if part == "attention" else size * len(_with(part, model, among))


def _mixing(model: ModelShape, among: range) -> int:
    """The elements of the matrices of attention, also linear, in some layers."""
    return sum(
        prod(weight.shape)
        for layer in among
        for weight in mixing(model, layer)
        if _is_product(model, weight)
    )


def _is_product(model: ModelShape, weight: Weight) -> bool:
    """Whether a weight of attention is one of the matrices that can be in 8 or 4 bits."""
    aside = weight.part in ("small", "norm") or (model.biased and weight.cut == 1)
    return len(weight.shape) == 2 and not aside


def _with(part: str, model: ModelShape, among: range) -> range:
    """Those of some layers that have a part."""
    dense = dense_layers(model)
    if part == "attention":
        return among
    if part == "feed_forward":
        return range(among.start, min(among.stop, dense))
    return range(max(among.start, dense), among.stop)


def unfit_widths(precision: Precision, model: ModelShape, resources: Resources) -> Wrong:
    """The parts whose widths the kernels do not take on a placement."""
    found = dict(_unfit(precision, model, resources))
    if not found:
        return None
    part, (weight, needed) = next(iter(found.items()))
    rows, columns = _local(weight, resources)
    split = f" on each of {resources.tensor} tensor ranks" if _is_split(weight, resources) else ""
    message = (
        f"{precision.kind} needs widths that are multiples of {needed}, but a layer of `{part}` "
        f"has {rows} × {columns}{split}"
    )
    parts = [p for p in PARTS if p in found or p in precision.except_]
    left = [p for p in converted(precision, model) if p not in found]
    fix = f"{precision.kind} {{ except = [{', '.join(parts)}] }}" if left else "bf16"
    fewer = next((t for t in _fewer(resources) if not any(_unfit(precision, model, t))), None)
    help = f"write `precision = {fix}`"
    return message, help + (f", or `tensor {fewer.tensor}`" if fewer else "")


def _fewer(resources: Resources) -> Iterator[Resources]:
    """The same with fewer tensor ranks, most first."""
    for tensor in range(resources.tensor - 1, 0, -1):
        if resources.tensor % tensor == 0:
            yield Resources(**{**vars(resources), "tensor": tensor})


def _unfit(
    precision: Precision, model: ModelShape, resources: Resources
) -> Iterator[tuple[str, tuple[Weight, int]]]:
    has = products(model)
    for part in converted(precision, model):
        kernels = KERNELS[precision.kind]
        needed = kernels.experts if part == "experts" else kernels.widths
        for weight in has[part]:
            if any(width % needed for width in _local(weight, resources)):
                yield part, (weight, needed)
                break


def _local(weight: Weight, resources: Resources) -> tuple[int, int]:
    """The widths of a rank's part of a matrix."""
    sides = list(weight.shape)
    if weight.cut is not None and _is_split(weight, resources):
        sides[weight.cut] //= resources.tensor
    return sides[-2], sides[-1]


def _is_split(weight: Weight, resources: Resources) -> bool:
    """Whether tensor parallelism splits a matrix: not experts that are placed."""
    apart = weight.part == "experts" and resources.expert > 1
    return weight.cut is not None and resources.tensor > 1 and not apart


def unfit_tokens(
    precision: Precision, model: ModelShape, resources: Resources, seq_len: int
) -> Wrong:
    """Why a sequence is cut into pieces that the kernels do not take."""
    parts = converted(precision, model)
    if not parts:
        return None
    chunks = LOSS_CHUNKS if "output" in parts else 1
    needed = KERNELS[precision.kind].tokens
    pieces = resources.context * chunks
    if seq_len % (needed * pieces) == 0:
        return None
    each = f"{seq_len / pieces:g} of them"
    ways = [f"{resources.context} context ranks"] * (resources.context > 1)
    ways += [f"{chunks} parts of the loss"] * (chunks > 1)
    among = f", among {' and '.join(ways)}," if ways else ""
    near = max(round(seq_len / needed / pieces), 1) * needed * pieces
    return (
        f"{precision.kind} multiplies multiples of {counted(needed, 'tokens')}, but a sequence of "
        f"{seq_len}{among} has {each} at a time",
        f"write `precision = bf16`, or a `seq_len` that is a multiple of {needed * pieces}, "
        f"such as {near}",
    )
