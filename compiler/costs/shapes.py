"""The symbols of the cost model that depend on a model's shape alone."""

from collections.abc import Mapping
from functools import lru_cache

from ..families import FAMILIES
from ..families.architectures import linear_layers, weights, widths, windowed_layers
from ..values import ModelShape


@lru_cache(maxsize=256)
def shape_symbols(model: ModelShape) -> Mapping[str, float]:
    """The symbols that depend on the model alone."""
    queries, keys, values = widths(model)
    latent, experts, of = model.latent, model.experts, weights(model)
    return {
        "d": model.dim,
        "H": model.heads,
        "q": queries,
        "k": keys,
        "w": values,
        "u": values if latent else queries,
        "N_last": of.final_norm + of.start + of.output_bias,
        "normed": model.qk_norm,
        "scaled": model.qk_norm or (model.parts is not None and model.parts.qk_norm != "none"),
        "biased": model.biased,
        "sinks": model.sinks,
        **_apart(model, queries, keys),
        "near": windowed_layers(model) / model.layers,
        **_linear(model, queries + keys + values + (values if latent else queries)),
        "r_q": latent.queries if latent else 0,
        "r_k": latent.keys if latent else 0,
        "r": latent.rotary if latent else 0,
        "turns": _angles(model),
        "f": model.ffn,
        "g": products(model),
        "V": model.vocab,
        "D": model.mtp,
        "E": experts.count if experts else 0,
        "K": experts.active if experts else 0,
        "E_s": experts.shared if experts else 0,
        "e": experts.ffn if experts else 0,
    }


def _linear(model: ModelShape, wide: int) -> dict[str, float]:
    """The symbols of linear attention, and of attention's gate.

    Args:
        wide: elements of a token that attention makes: queries, keys, values, and what it mixes.
    """
    of, linear = model.parts, linear_layers(model) / model.layers
    if of is None or not (linear or of.gate):
        return {"linear": 0, "more": 0, "H_l": 0, "h_k": 0, "h_v": 0}
    gate = 2 * model.heads * model.head_dim if of.gate else 0
    keys, values = of.linear_key_heads * of.linear_key_dim, of.linear_heads * of.linear_value_dim
    # Before and behind the convolution, the gate, the mixed values, and the same normed and gated.
    made = 2 * (2 * keys + values) + 3 * values
    return {
        "linear": linear,
        "more": (1 - linear) * gate + linear * (made - wide),
        "H_l": of.linear_heads,
        "h_k": of.linear_key_dim,
        "h_v": of.linear_value_dim,
    }


def _apart(model: ModelShape, queries: int, keys: int) -> dict[str, float]:
    """Parameters that a layer has besides those of a Llama's, or fewer than it, by its parts; of
    layers with and without linear attention, in the mean."""
    if model.parts is None:
        return {"apart": 0, "apart_e": 0}
    of, linear = weights(model), linear_layers(model)
    mixing = of.attention
    if linear:
        mixing += linear * (of.linear - of.attention) / model.layers
    more = mixing + of.norms - 2 * model.dim * (queries + keys) - 2 * model.dim
    return {"apart": more + of.feed_forward - 3 * model.dim * model.ffn, "apart_e": more}


def products(model: ModelShape) -> int:
    """Products that a feed-forward layer makes of its input: two with a gate, else one."""
    return 2 if model.parts is None or model.parts.gated else 1


def _angles(model: ModelShape) -> float:
    """Bytes that torchtitan keeps of the angles of a position: a complex number of 8 bytes for
    each pair of elements that rotates, or cosine and sine of each element in fp32."""
    if model.parts is not None:
        return 8 * model.head_dim * model.parts.rotary
    rotary = model.latent.rotary if model.latent else model.head_dim
    return (4 if FAMILIES[model.family].complex_rotary else 8) * rotary
