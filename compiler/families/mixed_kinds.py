"""How `config.json` of decoders with experts is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Experts, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_written import Written


def initial(values: Values, layers: int, key: str = "mlp_only_layers") -> int:
    """The number of layers at the beginning without experts, from a list of their numbers."""
    plain = values.config.get(key) or []
    if not isinstance(plain, list) or plain != list(range(len(plain))) or len(plain) > layers:
        values.problem(
            key,
            f"says {key} = {plain}: layers without experts are the first ones",
            "use weights whose first layers are those without experts",
        )
        return 0
    return len(plain)


def _read_mixtral(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": values.number("num_local_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("intermediate_size"),
    }
    window = values.number("sliding_window", 0, least=0)
    return head_width(values, shape) | {"window": window, "experts": experts, "parts": {}}


def _read_qwen3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": values.number("num_experts", values.config.get("num_local_experts", 128)),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "dense": initial(values, shape["layers"]),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    of = {"qk_norm": "head", "biases": "attention" if values.get("attention_bias") else "none"}
    return head_width(values, shape) | {"experts": experts, "parts": of}


SPARSE = {"decoder_sparse_step": (1, "all layers after the dense ones have experts")}
QWEN3_MOE: Mapping[str, Any] = {
    **LLAMA_DEFAULTS,
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "sliding_window": 4096,
    "norm_topk_prob": False,
}
"""transformers' defaults of a Qwen3 with experts."""
MIXED_KINDS = {
    "mixtral": Kind(
        example="Mixtral 8x7B",
        defaults={
            **LLAMA_DEFAULTS,
            "intermediate_size": 14_336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "num_experts_per_tok": 2,
            "num_local_experts": 8,
        },
        base=1e6,
        shape=_read_mixtral,
    ),
    "qwen3_moe": Kind(
        defaults={**QWEN3_MOE, "attention_bias": False},
        read=("num_experts", "num_local_experts", "mlp_only_layers"),
        fixed={**SPARSE, "use_sliding_window": (False, "all layers see the whole document")},
        shape=_read_qwen3,
    ),
}
"""model_type → how its configuration is read."""


def _experts(model: Architecture) -> Experts:
    assert model.experts
    return model.experts


def _mixtral(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = _experts(model)
    return {
        "intermediate_size": experts.ffn,
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "sliding_window": model.window or None,
    }


def _qwen3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"attention_bias": of.biases != "none", **written_qwen3(model)}


def written_qwen3(model: Architecture) -> dict[str, Any]:
    """The experts of a Qwen3."""
    experts = _experts(model)
    return {
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "norm_topk_prob": experts.normalized,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(min(experts.dense, model.layers))),
    }


MIXED_WRITTEN: Mapping[str, Written] = {
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3,
}
"""model_type → its own keys."""
MIXED_CLASSES = {
    "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3Moe",
}
"""model_type → the stem of its classes' names."""
