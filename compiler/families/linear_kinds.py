"""Published kinds of model with linear attention: how their `config.json` is read and written."""

from collections.abc import Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_computed import ANY
from .decoder_reading import share
from .decoder_written import Written, partial

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
QWEN: Mapping[str, Any] = {
    "qk_norm": "head",
    "gate": True,
    "rotary": ANY,
    **dict.fromkeys((*_KEYS, "linear_skips"), ANY),
}
"""The parts of Qwen3.5, besides Llama's."""
LINEAR_COMPUTED: Mapping[str, Mapping[str, Any]] = {"qwen3_5_text": QWEN}
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


LINEAR_WRITTEN: Mapping[str, Written] = {"qwen3_5_text": written_linear}
"""model_type → its own keys."""
LINEAR_CLASSES = {"qwen3_5_text": "Qwen3_5"}
"""model_type → the stem of its classes' names."""
