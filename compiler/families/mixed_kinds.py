"""How `config.json` of decoders with experts is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Experts, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_reading import share, whole_heads
from .decoder_written import Written, partial
from .family import BALANCE


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


def dense_first(values: Values, layers: int, otherwise: int) -> int:
    """The number of layers at the beginning without experts, from a list of kinds."""
    kinds = values.config.get("mlp_layer_types")
    if kinds is None:
        return otherwise
    dense = kinds.count("dense") if isinstance(kinds, list) else -1
    if dense < 0 or kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
        values.problem(
            "mlp_layer_types",
            f"says mlp_layer_types = {kinds}: layers without experts are the first ones",
            "use weights whose first layers are those without experts",
        )
        return 0
    return dense


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
    of = {"qk_norm": "head", "biases": attention_biases(values)}
    return head_width(values, shape) | {"experts": experts, "parts": of}


def _read_olmoe(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("intermediate_size"),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    of = whole_heads(shape, qk_norm="width", biases=attention_biases(values))
    return of | {"experts": experts}


def attention_biases(values: Values) -> str:
    """Where attention has biases."""
    return "attention" if values.get("attention_bias") else "none"


def alone(values: Values) -> dict[str, Any]:
    """Experts that are scored one by one, as DeepSeek-V3's."""
    return {
        "count": values.number("n_routed_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("moe_intermediate_size"),
        "shared": values.number("n_shared_experts"),
        "dense": values.number("first_k_dense_replace", 0, least=0),
        "scale": values.real(values.config, "routed_scaling_factor", 1.0),
        "normalized": bool(values.get("norm_topk_prob")),
        "score": "sigmoid",
    }


def _read_dots1(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window, first = values.get("sliding_window"), values.number("max_window_layers", 62, least=0)
    if window and first < shape["layers"] and "layer_types" not in values.config:
        values.problem(
            "max_window_layers",
            f"says max_window_layers = {first}: layers from there on have a window, which no "
            "family here has",
            "use weights in which all layers see the whole document",
        )
    of = {"qk_norm": "head", "biases": attention_biases(values)}
    return head_width(values, shape) | {"experts": alone(values), "parts": of}


def _read_glm4(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = {
        "qk_norm": "head" if values.get("use_qk_norm") else "none",
        "biases": "qkv" if values.get("attention_bias") else "none",
        "rotary": share(values),
    }
    return head_width(values, shape) | {"experts": alone(values), "parts": of}


def _read_minimax(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = head_width(values, shape)
    rope = values.config.get("rope_parameters") or {}
    said = {**values.config, **rope} if isinstance(rope, dict) else values.config
    part = values.real(said, "partial_rotary_factor", 1.0)
    if "partial_rotary_factor" not in said and "rotary_dim" in said:
        part = values.number("rotary_dim") / found["head_dim"]
    experts = {
        "count": values.number("num_local_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": values.number("intermediate_size"),
        "score": "sigmoid",
    }
    return found | {"experts": experts, "parts": {"qk_norm": "width", "rotary": part}}


def _read_ernie(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    last, layers = values.number("moe_layer_end_index", -1, least=-1), shape["layers"]
    if last not in (-1, layers - 1):
        values.problem(
            "moe_layer_end_index",
            f"says moe_layer_end_index = {last}: all layers after the dense ones have experts",
            "use weights whose last layers have experts",
        )
    experts = {
        "count": values.number("moe_num_experts"),
        "active": values.number("moe_k"),
        "ffn": values.number("moe_intermediate_size"),
        "shared": values.number("moe_num_shared_experts", 0, least=0),
        "dense": values.number("moe_layer_start_index", 0, least=0),
        "balance": BALANCE,
    }
    return head_width(values, shape) | {"experts": experts, "parts": {}}


ONE_GROUP = {
    "n_group": (1, "experts are chosen from all"),
    "topk_group": (1, "experts are chosen from all"),
}
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
    "olmoe": Kind(
        example="OLMoE 1B-7B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 50_304,
            "hidden_size": 2048,
            "intermediate_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "num_experts_per_tok": 8,
            "num_experts": 64,
            "norm_topk_prob": False,
            "attention_bias": False,
        },
        shape=_read_olmoe,
    ),
    "dots1": Kind(
        example="dots.llm1",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 152_064,
            "hidden_size": 4608,
            "intermediate_size": 10_944,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 62,
            "num_key_value_heads": 32,
            "sliding_window": 4096,
            "n_shared_experts": None,
            "n_routed_experts": None,
            "num_experts_per_tok": None,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.0,
            "attention_bias": False,
        },
        fixed=ONE_GROUP,
        shape=_read_dots1,
    ),
    "glm4_moe": Kind(
        example="GLM-4.5",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 151_552,
            "intermediate_size": 10_944,
            "num_hidden_layers": 46,
            "num_attention_heads": 96,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "moe_intermediate_size": 1408,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "n_routed_experts": 128,
            "routed_scaling_factor": 1.0,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "use_qk_norm": False,
            "attention_bias": False,
            "partial_rotary_factor": 0.5,
        },
        read=("num_mtp_layers",),
        fixed=ONE_GROUP,
        shape=_read_glm4,
    ),
    "minimax_m2": Kind(
        example="MiniMax-M2",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 200_064,
            "hidden_size": 3072,
            "intermediate_size": 1536,
            "num_hidden_layers": 62,
            "num_attention_heads": 48,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 196_608,
            "num_experts_per_tok": 8,
            "num_local_experts": 256,
        },
        read=("rotary_dim", "partial_rotary_factor"),
        fixed={"scoring_func": ("sigmoid", "experts are scored by a sigmoid")},
        base=5e6,
        shape=_read_minimax,
    ),
    "ernie4_5_moe": Kind(
        example="ERNIE 4.5 21B-A3B",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 103_424,
            "hidden_size": 2560,
            "intermediate_size": 12_288,
            "num_hidden_layers": 28,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "moe_intermediate_size": 1536,
            "moe_k": 6,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
        },
        read=("moe_norm_min", "moe_layer_end_index"),
        fixed={"moe_layer_interval": (1, "all layers after the dense ones have experts")},
        base=500_000.0,
        shape=_read_ernie,
    ),
}
"""model_type → how its configuration is read."""


def experts_of(model: Architecture) -> Experts:
    """The experts of a model that has some."""
    assert model.experts
    return model.experts


def _mixtral(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
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
    experts = experts_of(model)
    return {
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "norm_topk_prob": experts.normalized,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(min(experts.dense, model.layers))),
    }


def _olmoe(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "intermediate_size": experts.ffn,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "norm_topk_prob": experts.normalized,
        "attention_bias": of.biases != "none",
    }


def written_alone(model: Architecture) -> dict[str, Any]:
    """Experts that are scored one by one."""
    experts = experts_of(model)
    return {
        "n_routed_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "n_shared_experts": experts.shared,
        "first_k_dense_replace": min(experts.dense, model.layers),
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": experts.normalized,
        "routed_scaling_factor": experts.scale,
    }


def _dots1(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        **written_alone(model),
        "attention_bias": of.biases != "none",
        "sliding_window": None,
        "max_window_layers": model.layers,
    }


def _glm4(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        **written_alone(model),
        **partial(of),
        "attention_bias": of.biases != "none",
        "use_qk_norm": of.qk_norm != "none",
        "rope_parameters": rope | partial(of),
        "num_nextn_predict_layers": model.mtp,
    }


def _minimax(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "intermediate_size": experts.ffn,
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "rotary_dim": int(model.head_dim * of.rotary),
        "rope_parameters": rope | partial(of),
    }


def _ernie(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        "use_bias": False,
        "moe_num_experts": experts.count,
        "moe_k": experts.active,
        "moe_intermediate_size": experts.ffn,
        "moe_num_shared_experts": experts.shared,
        "moe_layer_start_index": min(experts.dense, model.layers),
        "moe_layer_end_index": model.layers - 1,
        "moe_layer_interval": 1,
    }


MIXED_WRITTEN: Mapping[str, Written] = {
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3,
    "olmoe": _olmoe,
    "dots1": _dots1,
    "glm4_moe": _glm4,
    "minimax_m2": _minimax,
    "ernie4_5_moe": _ernie,
}
"""model_type → its own keys."""
MIXED_CLASSES = {
    "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3Moe",
    "olmoe": "Olmoe",
    "dots1": "Dots1",
    "glm4_moe": "Glm4Moe",
    "minimax_m2": "MiniMaxM2",
    "ernie4_5_moe": "Ernie4_5_Moe",
}
"""model_type → the stem of its classes' names."""
