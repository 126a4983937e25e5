"""Complete architectures, and parameter and FLOP counts from the shape alone."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import prod
from typing import Any

from ...spec.record import Record
from ..values import Experts, Latent, ModelShape, Parts
from . import FAMILIES
from .weights import Weight, further_weights


def published(family: str, size: str) -> ModelShape:
    """The decoder of a published size."""
    return complete(family, size, dict(FAMILIES[family].sizes[size]))


LATENT_EPS = 1e-6
"""What the norms of latents add to the mean of squares, whatever `norm_eps` is."""


def complete(family: str, size: str | None, shape: dict[str, Any]) -> ModelShape:
    """The decoder of a shape, with the family's defaults for missing fields.

    Args:
        shape: fields of `ModelShape`; `latent`, `experts` and `parts` as their fields by name.
    """
    kind = FAMILIES[family]
    latent, experts = shape.get("latent"), shape.get("experts")
    mixed = Experts(**kind.usual_experts(experts.get("score")) | experts) if experts else None
    usual: dict[str, Any] = {
        "kv_heads": shape["heads"],
        "rope_theta": 10_000.0,
        "tied": False,
        "norm_eps": 1e-5,
        "head_dim": latent["plain"] + latent["rotary"]
        if latent
        else shape["dim"] // shape["heads"],
        "rope_scaling": "none",
        "rope_factor": 1.0,
        "rope_original": 0,
        "window": 0,
        "ffn": experts["ffn"] if experts else 0,
    }
    # transformers 5.24, `modeling_deepseek_v3.py`: norms of latents have no setting.
    other = latent and (usual | shape)["norm_eps"] != LATENT_EPS
    return ModelShape(
        family=family,
        size=size,
        qk_norm=kind.qk_norm,
        biased=kind.biased,
        sinks=kind.sinks,
        **usual
        | shape
        | {
            "latent": Latent(**{"queries": 0} | latent | ({"eps": LATENT_EPS} if other else {}))
            if latent
            else None,
            "experts": mixed,
            "parts": Parts(**kind.parts(usual | shape | {"experts": mixed}))
            if kind.parts
            else None,
        },
    )


class Weights(Record):
    """Parameters of a model by component; those of layers are per layer, and `start` is what stands
    between the embedding of tokens and the first layer."""

    attention: int
    linear: int
    norms: int
    feed_forward: int
    shared: int
    router: int
    expert: int
    embedding: int
    start: int
    output: int
    output_bias: int
    final_norm: int


def dense_layers(model: ModelShape) -> int:
    """Layers without experts."""
    return min(model.experts.dense, model.layers) if model.experts else model.layers


def windowed(model: ModelShape, layer: int) -> bool:
    """Whether a layer, counted from 0, has the model's window."""
    has = FAMILIES[model.family].windowed
    near = model.parts is None or model.parts.near(layer)
    return has is not None and model.window > 0 and has(layer) and near


@lru_cache(maxsize=1024)
def windowed_layers(model: ModelShape) -> int:
    """Layers with a window."""
    return sum(windowed(model, layer) for layer in range(model.layers))


def is_linear(model: ModelShape, layer: int) -> bool:
    """Whether a layer, counted from 0, has linear attention."""
    return model.parts is not None and model.parts.linear(layer)


@lru_cache(maxsize=1024)
def linear_layers(model: ModelShape) -> int:
    """Layers with linear attention."""
    return sum(is_linear(model, layer) for layer in range(model.layers))


def mixing(model: ModelShape, layer: int) -> Iterator[Weight]:
    """The weights by which a layer, counted from 0, mixes tokens: those of its attention."""
    family = FAMILIES[model.family]
    return family.linear(model) if is_linear(model, layer) else family.attention(model)


@lru_cache(maxsize=1024)
def weights(model: ModelShape) -> Weights:
    """Counts of parameters. Biases that balance the load of experts do not count."""
    family, experts = FAMILIES[model.family], model.experts
    mixed = list(family.mixture(model)) if experts else []
    table = model.vocab * model.dim
    return Weights(
        attention=_count(family.attention(model)),
        linear=_count(family.linear(model)) if linear_layers(model) else 0,
        norms=_count(family.norms(model)),
        feed_forward=_count(family.feed_forward(model)),
        shared=_count(each for each in mixed if each.part == "shared"),
        router=_count(each for each in mixed if each.part == "router"),
        expert=_count(each for each in mixed if each.part == "experts") // experts.count
        if experts
        else 0,
        embedding=table,
        start=_count(family.start(model)),
        output=0 if model.tied else table,
        output_bias=_count(family.output(model)),
        final_norm=_count(family.last_norm(model)),
    )


def _count(found: Iterable[Weight]) -> int:
    return sum(prod(weight.shape) for weight in found)


def parameters(model: ModelShape) -> int:
    """All parameters: embedding, attention, feed-forward, experts, norms and output layer."""
    return _parameters(model, model.experts.count if model.experts else 0)


def active_parameters(model: ModelShape) -> int:
    """Parameters that a token uses: of the experts, only those that it is routed to."""
    return _parameters(model, model.experts.active if model.experts else 0)


@lru_cache(maxsize=1024)
def _parameters(model: ModelShape, experts: int) -> int:
    of, dense = weights(model), dense_layers(model)
    mixed = of.shared + of.router + experts * of.expert
    linear = linear_layers(model)
    layers = (model.layers - linear) * of.attention + linear * of.linear + model.layers * of.norms
    layers += dense * of.feed_forward + (model.layers - dense) * mixed
    ends = of.embedding + of.start + of.final_norm + of.output + of.output_bias
    return layers + ends


def further_parameters(model: ModelShape) -> int:
    """Parameters of the modules that predict further tokens, which share embedding and output
    with the model (arXiv:2412.19437 §2.2): a layer, a matrix, and three norms each."""
    return model.mtp * _module(model, model.experts.count if model.experts else 0)


@lru_cache(maxsize=1024)
def _module(model: ModelShape, experts: int) -> int:
    of = weights(model)
    mixed = of.shared + of.router + experts * of.expert
    layer = of.feed_forward if further_is_dense(model) else mixed
    return of.attention + of.norms + layer + _count(further_weights(model))


def further_is_dense(model: ModelShape) -> bool:
    """Whether the layers of modules that predict further tokens have no experts: they are as the
    last of the model's."""
    return dense_layers(model) == model.layers


def flops_per_token(model: ModelShape) -> int:
    """Training FLOPs per token without attention scores: 6 N, with N active parameters, and for
    each further token those of its module and of the output.

    This is the count that reports publish (Kaplan et al., arXiv:2001.08361, §2.1, with embeddings;
    Llama 3, arXiv:2407.21783, §1: 3.8e25 for 405B and 15.6T tokens).
    """
    each = _module(model, model.experts.active if model.experts else 0) + model.vocab * model.dim
    return 6 * (active_parameters(model) + model.mtp * each)


def widths(model: ModelShape) -> tuple[int, int, int]:
    """Total widths of the queries, keys and values in attention."""
    if model.latent:
        wide = model.heads * (model.latent.plain + model.latent.rotary)
        return wide, wide, model.heads * model.latent.values
    keys = model.kv_heads * model.head_dim
    return model.heads * model.head_dim, keys, keys


def attention_flops_per_token(model: ModelShape, seq_len: int) -> int:
    """Training FLOPs per token of causal attention scores: 3 · heads · (w + v) · seq_len per layer,
    where w is the width of queries and keys per head, and v that of values.

    Scores and weighted sums take 2 · heads · (w + v) FLOPs per key, times three for forward and
    backward; half of the keys are in the future (PaLM, arXiv:2204.02311, Appendix B, halved). With
    a window of n tokens, a token has n keys, except the first n tokens, which have half as many:
    n · (2 - n / seq_len) replaces seq_len.

    A layer with linear attention takes 18 · heads · key width · value width, whatever the length:
    for a token it reads its state with the key, adds to it, and reads it with the query, by 2 FLOPs
    an element (arXiv:2412.06464 §3.1).
    """
    latent = model.latent
    width = latent.plain + latent.rotary + latent.values if latent else 2 * model.head_dim
    near, window = windowed_layers(model), min(model.window, seq_len)
    linear, of = linear_layers(model), model.parts
    full = model.layers + model.mtp - linear - near
    twice = full * seq_len**2 + near * window * (2 * seq_len - window)
    state = of.linear_heads * of.linear_key_dim * of.linear_value_dim if of else 0
    return 3 * model.heads * width * twice // seq_len + 18 * linear * state
