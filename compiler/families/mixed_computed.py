"""Which published kinds of model with experts have which parts, and how they route tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..values import Experts
from .decoder_computed import ANY

MIXED: Mapping[str, Mapping[str, Any]] = {
    "mixtral": {},
    "qwen3_moe": {"qk_norm": "head", "biases": ANY},
}
"""model_type with experts → the parts that it has, besides Llama's."""
_USUAL: Mapping[str, Any] = {
    "score": "softmax",
    "normalized": True,
    "scale": 1.0,
    "shared": 0,
    "dense": 0,
}
_ROUTED: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {"normalized": ANY, "dense": ANY},
}
"""model_type → how it routes otherwise than Mixtral."""


def routing(experts: Experts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The model_types that route tokens to such experts, and their parts."""
    for kind, parts in MIXED.items():
        wanted = {**_USUAL, **_ROUTED.get(kind, {})}
        has = {name: getattr(experts, name) for name in wanted}
        if all(value is ANY or has[name] == value for name, value in wanted.items()):
            yield kind, parts
