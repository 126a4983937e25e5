"""Further kinds of decoders with experts: how their `config.json` is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_computed import OLMO
from .decoder_reading import patterned, scaled, unrotated, whole_heads
from .decoder_written import Written, factors, layer_types
from .mixed_kinds import (
    ONE_GROUP,
    SPARSE,
    alone,
    attention_biases,
    dense_first,
    experts_of,
    initial,
    written_alone,
    written_qwen3,
)


def multiple(values: Values, key: str, width: int) -> int:
    """How many experts wide shared experts are, from their width."""
    given = values.number(key, 0, least=0)
    if given % width:
        values.problem(
            key,
            f"says {key} = {given}: shared experts are as wide as a whole number of experts, of "
            f"{width}",
            "use weights whose shared experts are so wide",
        )
    return given // width


def _same(values: Values, key: str) -> int:
    """A number that may be said for each layer."""
    given = values.get(key)
    if not isinstance(given, list):
        return values.number(key)
    if len({*map(str, given)}) == 1 and isinstance(given[0], int):
        return given[0]
    values.problem(
        key,
        f"says {key} = {given}: all layers have as many experts",
        "use weights whose layers are alike",
    )
    return 1


def _read_granite(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    width = values.number("intermediate_size")
    experts = {
        "count": values.number("num_local_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": width,
        "shared": multiple(values, "shared_intermediate_size", width),
    }
    return scaled(values, shape) | {"experts": experts}


def _read_flex(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("intermediate_size"),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    return whole_heads(shape, **OLMO, biases=attention_biases(values)) | {"experts": experts}


def _read_solar(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = {"biases": "qkv" if values.get("attention_bias") else "none"}
    return head_width(values, shape) | {"experts": alone(values), "parts": of}


def _read_hunyuan(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": _same(values, "num_experts"),
        "active": _same(values, "moe_topk"),
        "ffn": values.number("intermediate_size"),
        "shared": 1,
    }
    of = {"qk_norm": "head", "qk_norm_late": True, "biases": attention_biases(values)}
    return head_width(values, shape) | {"experts": experts, "parts": of}


def _read_qwen2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    width = values.number("moe_intermediate_size")
    shared = multiple(values, "shared_expert_intermediate_size", width)
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": width,
        "shared": shared,
        "shared_gate": shared > 0,
        "dense": initial(values, shape["layers"]),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    of = {"biases": "qkv" if values.get("qkv_bias") else "none"}
    return head_width(values, shape) | {"experts": experts, "parts": of}


def _read_exaone(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    given = values.get("sliding_window_pattern")
    # "LLLG": the last of so many layers sees the whole document.
    every = len(given) if isinstance(given, str) else values.number("sliding_window_pattern", 0)
    found = patterned(values, every)
    of = {"qk_norm": "head", **unrotated(values, found)}
    first = values.number("first_k_dense_replace", 0, least=0)
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "shared": values.number("num_shared_experts"),
        "dense": dense_first(values, shape["layers"], first),
        "scale": values.real(values.config, "routed_scaling_factor", 2.5),
        "normalized": bool(values.get("norm_topk_prob")),
        "score": "sigmoid",
    }
    width = head_width(values, shape)
    return width | {"window": found["window"], "experts": experts, "parts": of}


def _read_hy(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "shared": values.number("num_shared_experts"),
        "dense": dense_first(values, shape["layers"], min(1, shape["layers"])),
        "scale": values.real(values.config, "router_scaling_factor", 2.826),
        "score": "sigmoid",
    }
    of = {"qk_norm": "head", "biases": attention_biases(values)}
    return head_width(values, shape) | {"experts": experts, "parts": of}


def _read_mellum(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"window": 0, "parts": {}}
    if values.config.get("layer_types") is not None:
        found = patterned(values, 0)
    of = {"qk_norm": "head", "biases": attention_biases(values), **found["parts"]}
    if found["window"]:
        rope = values.config.get("rope_parameters")
        near = rope.get("sliding_attention") if isinstance(rope, dict) else None
        said = near if isinstance(near, dict) else {}
        of["window_theta"] = values.real(said, "rope_theta", 10_000.0)
    experts = {
        "count": values.number("num_experts", values.config.get("num_local_experts", 64)),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "dense": dense_first(values, shape["layers"], 0),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    width = head_width(values, shape)
    return width | {"window": found["window"], "experts": experts, "parts": of}


_GRANITE: Mapping[str, Any] = {
    **LLAMA_DEFAULTS,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
}
_FACTORS = (
    "attention_multiplier",
    "embedding_multiplier",
    "residual_multiplier",
    "logits_scaling",
)
FURTHER_KINDS = {
    "granitemoe": Kind(
        example="PowerMoE 3B",
        defaults=_GRANITE,
        read=_FACTORS,
        shape=_read_granite,
    ),
    "granitemoeshared": Kind(
        defaults={**_GRANITE, "shared_intermediate_size": 0},
        read=_FACTORS,
        shape=_read_granite,
    ),
    "flex_olmo": Kind(
        example="FlexOlmo 7x7B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 100_352,
            "max_position_embeddings": 4096,
            "num_experts_per_tok": 5,
            "num_experts": 7,
            "norm_topk_prob": False,
            "attention_bias": False,
        },
        base=500_000.0,
        shape=_read_flex,
    ),
    "solar_open": Kind(
        example="Solar Open 100B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 196_608,
            "num_hidden_layers": 48,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "moe_intermediate_size": 1280,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "n_routed_experts": 128,
            "routed_scaling_factor": 1.0,
            "norm_topk_prob": True,
            "attention_bias": False,
        },
        fixed={
            **ONE_GROUP,
            "first_k_dense_replace": (0, "all layers have experts"),
        },
        base=1e6,
        shape=_read_solar,
    ),
    "hunyuan_v1_moe": Kind(
        example="Hunyuan A13B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 290_943,
            "rms_norm_eps": 1e-5,
            "num_experts": 1,
            "moe_topk": 1,
            "attention_bias": False,
        },
        read=("alpha",),
        shape=_read_hunyuan,
    ),
    "qwen2_moe": Kind(
        example="Qwen1.5-MoE A2.7B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "max_position_embeddings": 32_768,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts_per_tok": 4,
            "num_experts": 60,
            "norm_topk_prob": False,
            "qkv_bias": True,
        },
        read=("mlp_only_layers",),
        fixed={**SPARSE, "use_sliding_window": (False, "all layers see the whole document")},
        shape=_read_qwen2,
    ),
    "exaone_moe": Kind(
        example="K-EXAONE 236B-A23B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 102_400,
            "intermediate_size": 16_384,
            "num_key_value_heads": 32,
            "rms_norm_eps": 1e-5,
            "sliding_window": 4096,
            "sliding_window_pattern": 4,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 1024,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
        },
        read=("mlp_layer_types",),
        fixed=ONE_GROUP,
        shape=_read_exaone,
    ),
    "hy_v3": Kind(
        example="Hy3",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 120_832,
            "intermediate_size": 13_312,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "num_experts": 192,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "moe_intermediate_size": 1536,
            "attention_bias": False,
        },
        read=("mlp_layer_types", "router_scaling_factor", "enable_moe_fp32_combine"),
        base=11_158_840.0,
        shape=_read_hy,
    ),
    "mellum": Kind(
        example="Mellum 2 12B-A2.5B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 98_304,
            "hidden_size": 2304,
            "intermediate_size": 7168,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "sliding_window": 1024,
            "moe_intermediate_size": 896,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "attention_bias": False,
        },
        # Its layers with windows have a RoPE base of their own.
        read=(
            *("mlp_layer_types", "rope_local_base_freq", "num_mtp_layers"),
            *("num_experts", "num_local_experts"),
        ),
        base=500_000.0,
        apart=True,
        shape=_read_mellum,
    ),
}
"""model_type → how its configuration is read."""


def _granite(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        **factors(model, of, rope),
        "intermediate_size": experts.ffn,
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
    }


def _granite_shared(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return _granite(model, of, rope) | {"shared_intermediate_size": experts.shared * experts.ffn}


def _flex(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "intermediate_size": experts.ffn,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "norm_topk_prob": experts.normalized,
        "attention_bias": of.biases != "none",
    }


def _solar(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    said = written_alone(model)
    del said["first_k_dense_replace"]
    return said | {"attention_bias": of.biases != "none"}


def _hunyuan(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "intermediate_size": experts.ffn,
        "num_experts": experts.count,
        "moe_topk": experts.active,
        "attention_bias": of.biases != "none",
    }


def _qwen2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        **written_qwen3(model),
        "shared_expert_intermediate_size": experts.shared * experts.ffn,
        "qkv_bias": of.biases != "none",
        "sliding_window": None,
    }


def _exaone(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    said = written_alone(model)
    return {
        **said,
        "num_experts": said.pop("n_routed_experts"),
        "num_shared_experts": said.pop("n_shared_experts"),
        "sliding_window": model.window,
        "sliding_window_pattern": of.window_skips,
        "layer_types": layer_types(model, of),
    }


def _types(model: Architecture) -> list[str]:
    """Which layers have experts."""
    dense = min(experts_of(model).dense, model.layers)
    return ["dense"] * dense + ["sparse"] * (model.layers - dense)


def _hy(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "num_shared_experts": experts.shared,
        "moe_intermediate_size": experts.ffn,
        "router_scaling_factor": experts.scale,
        "mlp_layer_types": _types(model),
        "attention_bias": of.biases != "none",
    }


def _mellum(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    near = {"rope_type": "default", "rope_theta": of.window_theta or model.rope_theta}
    said = written_qwen3(model)
    del said["mlp_only_layers"], said["decoder_sparse_step"]
    return {
        **said,
        "attention_bias": of.biases != "none",
        "sliding_window": model.window or None,
        "layer_types": layer_types(model, of),
        "mlp_layer_types": _types(model),
        "rope_parameters": {"full_attention": rope, "sliding_attention": near},
    }


FURTHER_WRITTEN: Mapping[str, Written] = {
    "granitemoe": _granite,
    "granitemoeshared": _granite_shared,
    "flex_olmo": _flex,
    "solar_open": _solar,
    "hunyuan_v1_moe": _hunyuan,
    "qwen2_moe": _qwen2,
    "exaone_moe": _exaone,
    "hy_v3": _hy,
    "mellum": _mellum,
}
"""model_type → its own keys."""
FURTHER_CLASSES = {
    "granitemoe": "GraniteMoe",
    "granitemoeshared": "GraniteMoeShared",
    "flex_olmo": "FlexOlmo",
    "solar_open": "SolarOpen",
    "hunyuan_v1_moe": "HunYuanMoEV1",
    "qwen2_moe": "Qwen2Moe",
    "exaone_moe": "ExaoneMoe",
    "hy_v3": "HYV3",
    "mellum": "Mellum",
}
"""model_type → the stem of its classes' names."""
