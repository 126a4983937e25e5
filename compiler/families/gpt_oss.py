"""gpt-oss: windows in every other layer, sinks, biases, and experts (arXiv:2508.10925 §2)."""

from collections.abc import Iterator
from typing import Any

from ..values import Architecture, ModelShape, Resources
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .family import Family
from .weights import Weight

_GPT_OSS: dict[str, Any] = {
    "dim": 2880,
    "heads": 64,
    "kv_heads": 8,
    "head_dim": 64,
    "vocab": 201_088,
    "window": 128,
    "rope_theta": 150_000.0,
    "rope_scaling": "yarn",
    "rope_factor": 32.0,
    "rope_original": 4096,
    "norm_eps": 1e-5,
}

SIZES: dict[str, dict[str, Any]] = {
    # arXiv:2508.10925, §2 and Table 1; widths: config.json of the published weights.
    "20B": _GPT_OSS | {"layers": 24, "experts": {"count": 32, "active": 4, "ffn": 2880}},
    "120B": _GPT_OSS | {"layers": 36, "experts": {"count": 128, "active": 4, "ffn": 2880}},
}


def windowed(layer: int) -> bool:
    """Whether a layer has the window: every other one, from the first (arXiv:2508.10925 §2.2)."""
    return layer % 2 == 0


def _shape(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    kinds, others = values.config.get("layer_types"), values.config
    near = not isinstance(kinds, list) or "sliding_attention" in kinds
    return head_width(values, shape) | {
        "window": values.number("sliding_window", 0, least=0) if near else 0,
        "experts": {
            "count": values.number("num_local_experts", others.get("num_experts")),
            "active": values.number("num_experts_per_tok", others.get("experts_per_token")),
            "ffn": shape["ffn"],
        },
    }


KIND = Kind(
    defaults={
        **LLAMA_DEFAULTS,
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "vocab_size": 201_088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "head_dim": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "num_experts_per_tok": 4,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
            "rope_theta": 150_000.0,
        },
    },
    read=("num_experts", "experts_per_token"),
    fixed={
        "attention_bias": (True, "attention adds biases"),
        "swiglu_limit": (7.0, "SwiGLU is clamped at 7"),
        "swiglu_alpha": (1.702, "SwiGLU's sigmoid has the slope 1.702"),
    },
    shape=_shape,
)


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of a gpt-oss."""
    experts = model.experts
    assert experts
    return {
        "name": "GptOss",
        "model_type": "gpt_oss",
        "head_dim": model.head_dim,
        "intermediate_size": experts.ffn,
        "attention_bias": True,
        # transformers requires it even if no layer has one.
        "sliding_window": model.window or model.context,
        "layer_types": [
            "sliding_attention" if model.window and windowed(layer) else "full_attention"
            for layer in range(model.layers)
        ],
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
    }


def attention(model: ModelShape) -> Iterator[Weight]:
    """Attention with biases, and a sink per head."""
    dim, heads = model.dim, model.heads
    queries, keys = heads * model.head_dim, model.kv_heads * model.head_dim
    for rows in (queries, keys, keys):
        yield Weight((rows, dim), 0)
        yield Weight((rows,), 0)
    yield Weight((dim, queries), 1)
    yield Weight((dim,), None)
    yield Weight((heads,), 0)


def mixture(model: ModelShape) -> Iterator[Weight]:
    """A layer of experts with biases."""
    experts, dim = model.experts, model.dim
    assert experts
    count, ffn = experts.count, experts.ffn
    yield Weight((count, dim), None, "router")
    yield Weight((count,), None, "router")
    yield Weight((count, 2 * ffn, dim), 1, "experts")
    yield Weight((count, 2 * ffn), 1, "experts")
    yield Weight((count, dim, ffn), 2, "experts")
    yield Weight((count, dim), None, "experts")


def emitted_otherwise(model: ModelShape, resources: Resources) -> tuple[str, ...]:
    """What etude fixes if tensor parallelism splits experts."""
    if resources.tensor == 1 or resources.expert > 1:
        return ()
    return (
        "Etude fixes experts of this placement: torchtitan 0.3 adds the last bias of an",
        "expert once for each tensor-parallel rank.",
    )


FAMILY = Family(
    sizes=SIZES,
    kinds={"gpt_oss": KIND},
    config_json=config_json,
    # By default, transformers rotates and sharpens the softmax as published.
    yarn={"truncate": False},
    attention=attention,
    mixture=mixture,
    emitted_otherwise=emitted_otherwise,
    experts=True,
    sparse=True,
    biased=True,
    sinks=True,
    windowed=windowed,
    scalings=("none", "yarn"),
)
