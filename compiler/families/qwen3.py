"""Qwen3: decoders with normed queries and keys, dense or with experts (arXiv:2505.09388 §2)."""

from collections.abc import Iterator
from typing import Any

from ..values import Architecture, ModelShape
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .family import Family, Known
from .mixed_kinds import QWEN3_MOE, SPARSE, initial, written_qwen3
from .weights import Weight, grouped_attention

_QWEN3: dict[str, Any] = {
    "kv_heads": 8,
    "head_dim": 128,
    "vocab": 151_936,
    "rope_theta": 1_000_000.0,
    "norm_eps": 1e-6,
}
_MIXED: dict[str, Any] = _QWEN3 | {"kv_heads": 4}

SIZES: dict[str, dict[str, Any]] = {
    # arXiv:2505.09388, Tables 1 and 2; widths: config.json of the published weights.
    "0.6B": _QWEN3 | {"layers": 28, "dim": 1024, "heads": 16, "ffn": 3072, "tied": True},
    "1.7B": _QWEN3 | {"layers": 28, "dim": 2048, "heads": 16, "ffn": 6144, "tied": True},
    "4B": _QWEN3 | {"layers": 36, "dim": 2560, "heads": 32, "ffn": 9728, "tied": True},
    "8B": _QWEN3 | {"layers": 36, "dim": 4096, "heads": 32, "ffn": 12288},
    "14B": _QWEN3 | {"layers": 40, "dim": 5120, "heads": 40, "ffn": 17408},
    "32B": _QWEN3 | {"layers": 64, "dim": 5120, "heads": 64, "ffn": 25600},
    "30B-A3B": _MIXED
    | {
        "layers": 48,
        "dim": 2048,
        "heads": 32,
        "ffn": 6144,
        "experts": {"count": 128, "active": 8, "ffn": 768},
    },
    "235B-A22B": _MIXED
    | {
        "layers": 94,
        "dim": 4096,
        "heads": 64,
        "ffn": 12288,
        "experts": {"count": 128, "active": 8, "ffn": 1536},
    },
}


def _experts(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return head_width(values, shape) | {
        "experts": {
            "count": values.number("num_experts", values.config.get("num_local_experts", 128)),
            "active": values.number("num_experts_per_tok"),
            "ffn": values.number("moe_intermediate_size"),
            "dense": initial(values, shape["layers"]),
        }
    }


KINDS = {
    "qwen3": Kind(
        near=("gemma3", "gemma3_text", "qwen3_5"),
        example="Qwen3",
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 151_936,
            "intermediate_size": 22_016,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,
        },
        fixed={"num_experts": (None, "a qwen3_moe has experts, a qwen3 has none")},
        shape=head_width,
    ),
    "qwen3_moe": Kind(
        near=("qwen2_moe", "llama4", "llama4_text"),
        example="Qwen3 30B-A3B",
        defaults=QWEN3_MOE,
        read=("num_experts", "num_local_experts", "mlp_only_layers"),
        fixed={
            **SPARSE,
            "norm_topk_prob": (True, "the scores of a token's experts add up to 1"),
        },
        shape=_experts,
    ),
}


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of a Qwen3."""
    width = {"head_dim": model.head_dim}
    if model.experts is None:
        return {"name": "Qwen3", "model_type": "qwen3", **width}
    return {
        "name": "Qwen3Moe",
        "model_type": "qwen3_moe",
        **width,
        **written_qwen3(model),
    }


def attention(model: ModelShape) -> Iterator[Weight]:
    """Attention with normed queries and keys."""
    yield from grouped_attention(model)
    yield Weight((model.head_dim,), None)
    yield Weight((model.head_dim,), None)


FAMILY = Family(
    sizes=SIZES,
    kinds=KINDS,
    config_json=config_json,
    attention=attention,
    known=(
        Known(
            name=r"qwen3-(0\.6B|1\.7B|4B|8B|14B|32B|30B-A3B|235B-A22B)", shape={}, context=32_768
        ),
    ),
    qk_norm=True,
    experts=True,
    scalings=("none", "yarn"),
)
