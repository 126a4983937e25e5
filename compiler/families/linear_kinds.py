"""Published kinds of model with linear attention: how their `config.json` is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_computed import LINEAR_QWEN
from .decoder_reading import share
from .decoder_written import Written, partial
from .further_mixed_kinds import multiple
from .mixed_kinds import SPARSE, experts_of, initial, written_qwen3

_KEYS = {
    "linear_heads": "linear_num_value_heads",
    "linear_key_heads": "linear_num_key_heads",
    "linear_key_dim": "linear_key_head_dim",
    "linear_value_dim": "linear_value_head_dim",
    "linear_convolution": "linear_conv_kernel_dim",
}
"""Parts of linear attention → what `config.json` calls them."""
FULL = "full_attention"
LINEAR = "linear_attention"
LINEAR_COMPUTED: Mapping[str, Mapping[str, Any]] = {"qwen3_5_text": LINEAR_QWEN}
"""model_type without experts → the parts that it has, besides Llama's."""


def every(values: Values, layers: int) -> int:
    """Every so manieth layer has attention: as the layers are listed, or said by their distance."""
    kinds = values.config.get("layer_types")
    if not isinstance(kinds, list):
        return values.number("full_attention_interval", 4)
    found = kinds.index(FULL) + 1 if FULL in kinds else 0
    pattern = [LINEAR if not found or (at + 1) % found else FULL for at in range(layers)]
    if found < 2 or kinds != pattern:
        values.problem(
            "layer_types",
            "says layer_types that are not linear attention with attention in every n-th layer",
            "use weights in which every n-th layer has attention and the others are linear",
        )
    return found


def read_qwen(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    """The parts of a Qwen3.5."""
    of: dict[str, Any] = {part: values.number(key) for part, key in _KEYS.items()}
    of |= {"qk_norm": "head", "gate": True, "rotary": share(values)}
    return head_width(values, shape) | {
        "parts": of | {"linear_skips": every(values, shape["layers"])}
    }


def _read_mixed(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    """A Qwen3.5 or Qwen3-Next with experts, whose shared one has a gate."""
    width = values.number("moe_intermediate_size")
    experts = {
        "count": values.number("num_experts"),
        "active": values.number("num_experts_per_tok"),
        "ffn": width,
        "shared": multiple(values, "shared_expert_intermediate_size", width),
        "shared_gate": True,
        "dense": initial(values, shape["layers"]),
        "normalized": bool(values.get("norm_topk_prob")),
    }
    return read_qwen(values, shape) | {"experts": experts}


LINEAR_DEFAULTS: Mapping[str, Any] = {
    **LLAMA_DEFAULTS,
    "num_attention_heads": 16,
    "max_position_embeddings": 32_768,
    "head_dim": 256,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
LINEAR_READ = ("full_attention_interval",)
LINEAR_KINDS = {
    "qwen3_5_text": Kind(
        near=("qwen3_5", "olmo_hybrid", "kimi_linear"),
        example="Qwen3.5 9B",
        defaults={
            **LINEAR_DEFAULTS,
            "vocab_size": 248_320,
            "intermediate_size": 12_288,
            "num_key_value_heads": 4,
        },
        read=LINEAR_READ,
        shape=read_qwen,
    ),
    "qwen3_next": Kind(
        example="Qwen3-Next 80B-A3B",
        defaults={
            **LINEAR_DEFAULTS,
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 48,
            "num_key_value_heads": 2,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts_per_tok": 10,
            "num_experts": 512,
            "norm_topk_prob": True,
        },
        read=(*LINEAR_READ, "mlp_only_layers"),
        fixed=SPARSE,
        shape=_read_mixed,
    ),
    "qwen3_5_moe_text": Kind(
        near=("qwen3_5_moe",),
        example="Qwen3.5 35B-A3B",
        defaults={
            **LINEAR_DEFAULTS,
            "vocab_size": 248_320,
            "hidden_size": 2048,
            "intermediate_size": 512,
            "num_hidden_layers": 40,
            "num_key_value_heads": 2,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts_per_tok": 8,
            "num_experts": 256,
            "norm_topk_prob": True,
        },
        read=LINEAR_READ,
        shape=_read_mixed,
    ),
}
"""model_type → how its configuration is read."""


def written_linear(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    """The keys of linear attention, and of what rotates."""
    return {
        **{key: getattr(of, part) for part, key in _KEYS.items()},
        **partial(of),
        "layer_types": [LINEAR if of.linear(at) else FULL for at in range(model.layers)],
        "rope_parameters": rope | partial(of),
    }


def _next(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    experts = experts_of(model)
    return {
        **written_linear(model, of, rope),
        **written_qwen3(model),
        "shared_expert_intermediate_size": experts.shared * experts.ffn,
    }


def _mixed(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    found = _next(model, of, rope)
    return {key: found[key] for key in found if key not in ("mlp_only_layers", *SPARSE)}


LINEAR_WRITTEN: Mapping[str, Written] = {
    "qwen3_5_text": written_linear,
    "qwen3_next": _next,
    "qwen3_5_moe_text": _mixed,
}
"""model_type → its own keys."""
LINEAR_CLASSES = {
    "qwen3_5_text": "Qwen3_5",
    "qwen3_next": "Qwen3Next",
    "qwen3_5_moe_text": "Qwen3_5Moe",
}
"""model_type → the stem of its classes' names."""
