"""Kinds of decoders with experts whose layers differ from Llama's in more than their experts: how
their `config.json` is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_reading import patterned, unrotated, whole_heads
from .decoder_written import Written, layer_types
from .mixed_kinds import ONE_GROUP, attention_biases, experts_of


def _read_afmoe(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = patterned(values, values.number("global_attn_every_n_layers", 4))
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "shared": values.number("num_shared_experts"),
        "dense": values.number("num_dense_layers", 1, least=0),
        "scale": values.real(values.config, "route_scale", 1.0),
        "score": "sigmoid",
    }
    of = {
        **unrotated(values, found),
        "norms": "both",
        "qk_norm": "head",
        "gate": True,
        "biases": attention_biases(values),
        "scaled": bool(values.get("mup_enabled")),
    }
    width = head_width(values, shape)
    return width | {"window": found["window"], "experts": experts, "parts": of}


def _within(values: Values, key: str) -> dict[str, Any]:
    """An object of the configuration."""
    given = values.config.get(key)
    return given if isinstance(given, dict) else {}


def _read_dbrx(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    """transformers takes the RoPE base of `rope_parameters`, and older versions, with which the
    weights were published, that of `attn_config`."""
    attention, fed = _within(values, "attn_config"), _within(values, "ffn_config")
    clip = values.real(attention, "clip_qkv", 0.0)
    found = whole_heads(shape, norm="layer_scale", qkv_clip=clip)
    if not clip:
        values.problem(
            "attn_config",
            "says no clip_qkv in attn_config, and transformers computes no DBRX without it",
            "use other weights, such as DBRX",
        )
    rope = _within(values, "rope_parameters")
    base = values.real(attention, "rope_theta", 10_000.0)
    if "rope_theta" not in rope:
        found["rope_theta"] = base
    elif "rope_theta" in attention and rope["rope_theta"] != base:
        values.problem(
            "attn_config",
            f"says rope_theta = {base:g} in attn_config, and {rope['rope_theta']:g} in "
            "rope_parameters: versions of transformers differ in which they take",
            "remove the one with which the weights were not trained from config.json",
        )
    power = fed.get("moe_normalize_expert_weights", 1.0)
    activation = fed.get("ffn_act_fn") or {"name": "silu"}
    for key, given, able in (
        ("moe_normalize_expert_weights", power, power in (None, 1)),
        ("ffn_act_fn", activation, activation == {"name": "silu"}),
    ):
        if not able:
            values.problem(
                "ffn_config",
                f"says {key} = {given!r} in ffn_config: experts have SiLU, and their scores add up "
                "to 1 or are left as they are",
                "use other weights, such as DBRX",
            )
    within = Values(fed, {"ffn_hidden_size": 3584, "moe_num_experts": 4, "moe_top_k": 1})
    width = within.number("ffn_hidden_size")
    experts = {
        "count": within.number("moe_num_experts"),
        "active": within.number("moe_top_k"),
        "ffn": width,
        "normalized": power is not None,
    }
    heads = Values(attention, {"kv_n_heads": 1})
    found |= {"kv_heads": heads.number("kv_n_heads"), "ffn": width, "norm_eps": 1e-5}
    for each in (within, heads):
        values.problems += each.problems
    return found | {"experts": experts}


OTHER_KINDS = {
    "afmoe": Kind(
        example="Trinity Mini 26B-A3B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 200_192,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_attention_heads": 16,
            "head_dim": 128,
            "max_position_embeddings": 16_384,
            "rms_norm_eps": 1e-5,
            "sliding_window": 1024,
            "moe_intermediate_size": 1408,
            "num_dense_layers": 1,
            "num_experts": 64,
            "num_experts_per_tok": 6,
            "num_shared_experts": 2,
            "attention_bias": False,
            "mup_enabled": False,
        },
        # How its experts were trained, and computed.
        read=(
            *("global_attn_every_n_layers", "route_scale"),
            *("load_balance_coeff", "use_grouped_mm"),
        ),
        fixed={
            **ONE_GROUP,
            "num_expert_groups": (1, "experts are chosen from all"),
            "num_limited_groups": (1, "experts are chosen from all"),
            "route_norm": (True, "the scores of a token's experts add up to 1"),
            "score_func": ("sigmoid", "experts are scored by a sigmoid"),
        },
        shape=_read_afmoe,
    ),
    "dbrx": Kind(
        example="DBRX 132B-A36B",
        defaults={
            "vocab_size": 32_000,
            "d_model": 2048,
            "n_heads": 16,
            "n_layers": 24,
            "max_seq_len": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
        read=("attn_config", "ffn_config", "num_key_value_heads", "emb_pdrop"),
        names={
            "hidden_size": ("d_model",),
            "num_hidden_layers": ("n_layers",),
            "num_attention_heads": ("n_heads",),
            "max_position_embeddings": ("max_seq_len",),
        },
        shape=_read_dbrx,
    ),
}
"""model_type → how its configuration is read."""


def _afmoe(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "num_shared_experts": experts.shared,
        "num_dense_layers": min(experts.dense, model.layers),
        "route_scale": experts.scale,
        "sliding_window": model.window,
        "layer_types": layer_types(model, of),
        "attention_bias": of.biases != "none",
        "mup_enabled": of.scaled,
    }


def _dbrx(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "d_model": model.dim,
        "n_heads": model.heads,
        "n_layers": model.layers,
        "max_seq_len": model.context,
        "attn_config": {
            "kv_n_heads": model.kv_heads,
            "clip_qkv": of.qkv_clip or None,
            # Which transformers 5 does not use, and does not load a model without.
            "rope_theta": model.rope_theta,
        },
        "ffn_config": {
            "ffn_hidden_size": experts.ffn,
            "moe_num_experts": experts.count,
            "moe_top_k": experts.active,
            "moe_normalize_expert_weights": 1.0 if experts.normalized else None,
        },
    }


OTHER_WRITTEN: Mapping[str, Written] = {
    "afmoe": _afmoe,
    "dbrx": _dbrx,
}
"""model_type → its own keys."""
OTHER_CLASSES = {
    "afmoe": "Afmoe",
    "dbrx": "Dbrx",
}
"""model_type → the stem of its classes' names."""
