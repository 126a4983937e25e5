"""Which published kinds of model with experts have which parts, and how they route tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..values import Experts
from .decoder_computed import ANY, LINEAR_QWEN

GRANITE = {
    "attention_scale": ANY,
    "embedding_scale": ANY,
    "residual_scale": ANY,
    "logit_scale": ANY,
}
MIXED: Mapping[str, Mapping[str, Any]] = {
    "mixtral": {},
    "qwen3_moe": {"qk_norm": "head", "biases": ANY},
    "olmoe": {"qk_norm": "width", "biases": ANY},
    "dots1": {"qk_norm": "head", "biases": ANY},
    "glm4_moe": {"qk_norm": ANY, "biases": ANY, "rotary": ANY},
    "minimax_m2": {"qk_norm": "width", "rotary": ANY},
    "ernie4_5_moe": {},
    "granitemoe": GRANITE,
    "granitemoeshared": GRANITE,
    "flex_olmo": {"norms": "after", "qk_norm": "width", "biases": ANY},
    "hunyuan_v1_moe": {"qk_norm": "head", "qk_norm_late": True, "biases": ANY},
    "qwen2_moe": {"biases": ANY},
    "exaone_moe": {"qk_norm": "head", "rotary_skips": ANY, "window_skips": ANY},
    "qwen3_next": LINEAR_QWEN,
    "qwen3_5_moe_text": LINEAR_QWEN,
    "mellum": {
        "qk_norm": "head",
        "biases": ANY,
        "window_skips": ANY,
        "window_first": ANY,
        "window_theta": ANY,
    },
    "afmoe": {
        "norms": "both",
        "qk_norm": "head",
        "gate": True,
        "scaled": ANY,
        "biases": ANY,
        "rotary_skips": ANY,
        "window_skips": ANY,
    },
    "dbrx": {"norm": "layer_scale", "qkv_clip": ANY},
}
"""model_type with experts → the parts that it has, besides Llama's."""
_USUAL: Mapping[str, Any] = {
    "score": "softmax",
    "normalized": True,
    "scale": 1.0,
    "shared": 0,
    "dense": 0,
    "shared_gate": False,
}
_ALONE = {"score": "sigmoid", "normalized": ANY, "scale": ANY, "shared": ANY, "dense": ANY}
_ROUTED: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {"normalized": ANY, "dense": ANY},
    "olmoe": {"normalized": ANY},
    "dots1": _ALONE,
    "glm4_moe": _ALONE,
    "minimax_m2": {"score": "sigmoid"},
    "ernie4_5_moe": {"shared": ANY, "dense": ANY},
    "granitemoeshared": {"shared": ANY},
    "flex_olmo": {"normalized": ANY},
    "hunyuan_v1_moe": {"shared": 1},
    "qwen2_moe": {"normalized": ANY, "dense": ANY, "shared": ANY, "shared_gate": True},
    "qwen3_next": {"normalized": ANY, "dense": ANY, "shared": ANY, "shared_gate": True},
    "qwen3_5_moe_text": {"shared": ANY, "shared_gate": True},
    "exaone_moe": _ALONE,
    "mellum": {"normalized": ANY, "dense": ANY},
    "afmoe": {**_ALONE, "normalized": True},
    "dbrx": {"normalized": ANY},
}
"""model_type → how it routes otherwise than Mixtral."""
BALANCED = ("dots1", "glm4_moe", "minimax_m2", "ernie4_5_moe", "exaone_moe", "afmoe")
"""model_types with a bias on the choice of experts."""


def routing(experts: Experts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The model_types that route tokens to such experts, and their parts: those that have a bias on
    the choice first, if these experts have one."""
    for kind, parts in sorted(
        MIXED.items(), key=lambda of: (of[0] in BALANCED) != (experts.balance > 0)
    ):
        wanted = {**_USUAL, **_ROUTED.get(kind, {})}
        has = {name: getattr(experts, name) for name in wanted}
        if all(value is ANY or has[name] == value for name, value in wanted.items()):
            yield kind, parts
