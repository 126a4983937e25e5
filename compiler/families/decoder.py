"""Decoders whose blocks a spec puts together from parts, and published models that are values of
these parts."""

import re
from collections.abc import Iterator
from typing import Any

from ..values import ModelShape
from .decoder_computed import OLMO, USUAL
from .decoder_config import UNSCORED, config_json, published
from .decoder_kinds import KINDS
from .family import Family, Known, Shape
from .weights import Weight, swiglu

_OLMO2: dict[str, Any] = {
    "vocab": 100_352,
    "rope_theta": 500_000.0,
    "norm_eps": 1e-6,
    "parts": OLMO,
}
_OLMO3: dict[str, Any] = _OLMO2 | {
    "vocab": 100_278,
    "window": 4096,
    "parts": {**OLMO, "window_skips": 4},
}
_OLMO_7B: dict[str, Any] = {"layers": 32, "dim": 4096, "heads": 32, "ffn": 11008}
_OLMO_32B: dict[str, Any] = {"layers": 64, "dim": 5120, "heads": 40, "kv_heads": 8, "ffn": 27648}
_QWEN: dict[str, Any] = {
    "vocab": 151_936,
    "rope_theta": 1e6,
    "norm_eps": 1e-6,
    "parts": {"biases": "qkv"},
}
_QWEN_LARGE: dict[str, Any] = _QWEN | {"vocab": 152_064}
_QWEN_LARGEST: dict[str, Any] = _QWEN_LARGE | {"kv_heads": 8, "norm_eps": 1e-5}
_GEMMA: dict[str, Any] = {"norm_eps": 1e-6, "tied": True}
_GEMMA2: dict[str, Any] = _GEMMA | {
    "vocab": 256_000,
    "rope_theta": 10_000.0,
    "window": 4096,
    "head_dim": 256,
    "parts": {
        "norms": "both",
        "activation": "gelu_tanh",
        "scaled": True,
        "window_skips": 2,
        "attention_cap": 50.0,
        "logit_cap": 30.0,
    },
}
_GLM: dict[str, Any] = {
    "heads": 96,
    "kv_heads": 8,
    "head_dim": 128,
    "vocab": 151_552,
    "rope_theta": 1e6,
    "norm_eps": 1e-5,
    "experts": {"active": 8, "shared": 1, "score": "sigmoid"},
    "parts": {"biases": "qkv", "rotary": 0.5},
}

# config.json of the published weights: allenai/OLMo-2-1124-7B, -13B and OLMo-2-0325-32B;
# allenai/Olmo-3-1025-7B and Olmo-3-1125-32B, whose vocabulary is cut to the tokenizer's (OLMo-core,
# `nn/hf/checkpoint.py`); Qwen/Qwen2.5-0.5B to -72B, base models (also torchtune,
# `models/qwen2_5/_model_builders.py`); HuggingFaceTB/SmolLM3-3B, with the RoPE base of its last
# stage (huggingface/smollm, `pretraining/smollm3/long_context_32k_to_64.yaml`; before that
# 50,000); bigcode/starcoder2-3b.
# Gemma 2 and 3: google/gemma_pytorch, `gemma/config.py`. Mixtral: arXiv:2401.04088, Table 1, with
# the epsilon and RoPE base of transformers' configuration (`configuration_mixtral.py`); 8x22B:
# NVIDIA/NeMo, `nemo/collections/llm/gpt/model/mixtral.py`. GLM-4.5 and its Air, 106B:
# arXiv:2508.06471, Table 1, with the RoPE base of its longer texts (§2.4), and NVIDIA's
# Megatron-Bridge, `docs/models/llm/glm45.md`.
SIZES: dict[str, dict[str, Any]] = {
    "olmo2-7B": _OLMO2 | _OLMO_7B,
    "olmo2-13B": _OLMO2 | {"layers": 40, "dim": 5120, "heads": 40, "ffn": 13824},
    "olmo2-32B": _OLMO2 | _OLMO_32B,
    "olmo3-7B": _OLMO3 | _OLMO_7B,
    "olmo3-32B": _OLMO3 | _OLMO_32B,
    "qwen2.5-0.5B": _QWEN
    | {"layers": 24, "dim": 896, "heads": 14, "kv_heads": 2, "ffn": 4864, "tied": True},
    "qwen2.5-1.5B": _QWEN
    | {"layers": 28, "dim": 1536, "heads": 12, "kv_heads": 2, "ffn": 8960, "tied": True},
    "qwen2.5-3B": _QWEN
    | {"layers": 36, "dim": 2048, "heads": 16, "kv_heads": 2, "ffn": 11008, "tied": True},
    "qwen2.5-7B": _QWEN_LARGE
    | {"layers": 28, "dim": 3584, "heads": 28, "kv_heads": 4, "ffn": 18944},
    "qwen2.5-14B": _QWEN_LARGEST | {"layers": 48, "dim": 5120, "heads": 40, "ffn": 13824},
    "qwen2.5-32B": _QWEN_LARGEST | {"layers": 64, "dim": 5120, "heads": 40, "ffn": 27648},
    "qwen2.5-72B": _QWEN_LARGEST | {"layers": 80, "dim": 8192, "heads": 64, "ffn": 29568},
    "gemma2-2B": _GEMMA2 | {"layers": 26, "dim": 2304, "heads": 8, "kv_heads": 4, "ffn": 9216},
    "gemma2-9B": _GEMMA2 | {"layers": 42, "dim": 3584, "heads": 16, "kv_heads": 8, "ffn": 14336},
    "gemma2-27B": _GEMMA2
    | {
        "layers": 46,
        "dim": 4608,
        "heads": 32,
        "kv_heads": 16,
        "ffn": 36864,
        "head_dim": 128,
        "parts": {**_GEMMA2["parts"], "attention_scale": 144**-0.5},
    },
    "gemma3-1B": _GEMMA
    | {
        "layers": 26,
        "dim": 1152,
        "heads": 4,
        "kv_heads": 1,
        "head_dim": 256,
        "ffn": 6912,
        "vocab": 262_144,
        "rope_theta": 1e6,
        "window": 512,
        "parts": {
            "norms": "both",
            "qk_norm": "head",
            "activation": "gelu_tanh",
            "scaled": True,
            "window_skips": 6,
            "window_theta": 10_000.0,
        },
    },
    "smollm3-3B": {
        "layers": 36,
        "dim": 2048,
        "heads": 16,
        "kv_heads": 4,
        "ffn": 11008,
        "vocab": 128_256,
        "rope_theta": 5e6,
        "norm_eps": 1e-6,
        "tied": True,
        "parts": {"rotary_skips": 4},
    },
    "mixtral-8x7B": {
        "layers": 32,
        "dim": 4096,
        "heads": 32,
        "kv_heads": 8,
        "ffn": 14336,
        "vocab": 32_000,
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "experts": {"count": 8, "active": 2, "ffn": 14336},
    },
    "mixtral-8x22B": {
        "layers": 56,
        "dim": 6144,
        "heads": 48,
        "kv_heads": 8,
        "ffn": 16384,
        "vocab": 32_000,
        "rope_theta": 1e6,
        "norm_eps": 1e-5,
        "experts": {"count": 8, "active": 2, "ffn": 16384},
    },
    "glm4.5-106B": _GLM
    | {
        "layers": 46,
        "dim": 4096,
        "ffn": 10_944,
        "experts": {**_GLM["experts"], "count": 128, "ffn": 1408, "dense": 1},
    },
    "glm4.5-355B": _GLM
    | {
        "layers": 92,
        "dim": 5120,
        "ffn": 12_288,
        "experts": {**_GLM["experts"], "count": 160, "ffn": 1536, "dense": 3, "scale": 2.5},
        "parts": {**_GLM["parts"], "qk_norm": "head"},
    },
    "starcoder2-3B": {
        "layers": 30,
        "dim": 3072,
        "heads": 24,
        "kv_heads": 2,
        "ffn": 12288,
        "vocab": 49_152,
        "rope_theta": 999_999.4420358813,
        "norm_eps": 1e-5,
        "tied": True,
        "window": 4096,
        "parts": {"norm": "layer", "activation": "gelu_tanh", "gated": False, "biases": "all"},
    },
}

LINEAR: dict[str, int] = {
    "linear_key_dim": 128,
    "linear_value_dim": 128,
    "linear_convolution": 4,
    "linear_skips": 4,
}
"""What a gated delta net has unless told otherwise: as in Qwen3-Next (its config.json)."""


def parts(shape: Shape) -> dict[str, Any]:
    """The parts of a shape, complete, and the model_type that computes them."""
    given = {**USUAL, **(shape.get("parts") or {}), "published": ""}
    if given["linear_heads"]:
        usual = LINEAR | {"linear_key_heads": given["linear_heads"]}
        given |= {name: given[name] or value for name, value in usual.items()}
    return given | {"published": published(given, shape)}


def attention(model: ModelShape) -> Iterator[Weight]:
    """Grouped-query attention with its biases and norms."""
    of = model.parts
    assert of
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    inside, outside, _ = of.biased
    for rows in (queries, keys, keys):
        yield Weight((rows, model.dim), 0)
        if inside:
            yield Weight((rows,), 0)
    if of.gate:
        yield Weight((queries, model.dim), 0)
    yield Weight((model.dim, queries), 1)
    if outside:
        yield Weight((model.dim,), None)
    for heads in (model.heads, model.kv_heads):
        yield from _norm_of_heads(model, of.qk_norm, heads)


def linear(model: ModelShape) -> Iterator[Weight]:
    """A gated delta net (arXiv:2412.06464 §3.3): queries, keys, values and their gate, the products
    for decay and strength, convolutions, a bias and a rate of the decay, the norm, the output."""
    of = model.parts
    assert of
    keys, values = of.linear_key_heads * of.linear_key_dim, of.linear_heads * of.linear_value_dim
    for rows in (keys, keys, values, values):
        yield Weight((rows, model.dim), 0)
    for _ in range(2):
        yield Weight((of.linear_heads, model.dim), 0, "small")
    for rows in (keys, keys, values):
        yield Weight((rows, of.linear_convolution), 0, "small")
    for _ in range(2):
        yield Weight((of.linear_heads,), 0)
    yield Weight((of.linear_value_dim,), None)
    yield Weight((model.dim, values), 1)


def _norm_of_heads(model: ModelShape, kind: str, heads: int) -> Iterator[Weight]:
    """The norm of queries, or of keys."""
    if kind == "layers":
        yield Weight((heads, model.head_dim), 0, "norm")
    elif kind == "width":
        yield Weight((heads * model.head_dim,), None)
    elif kind in ("head", "layer"):
        for _ in range(1 if kind == "head" else 2):
            yield Weight((model.head_dim,), None)


def feed_forward(model: ModelShape) -> Iterator[Weight]:
    """A feed-forward layer of two or three matrices."""
    of = model.parts
    assert of
    matrices = list(swiglu(model.dim, model.ffn))
    yield from matrices if of.gated else (matrices[0], matrices[2])
    if of.activation == "xielu":
        yield Weight((1,), None)
        yield Weight((1,), None)
    if of.biased[2]:
        for _ in range(2 if of.gated else 1):
            yield Weight((model.ffn,), 0)
        yield Weight((model.dim,), None)


def _norm(model: ModelShape) -> Iterator[Weight]:
    assert model.parts
    for _ in range(model.parts.norm_weights):
        yield Weight((model.dim,), None)


def norms(model: ModelShape) -> Iterator[Weight]:
    """The norms of a layer."""
    of = model.parts
    assert of
    for _ in range(4 if of.norms == "both" else 1 if of.parallel == "one" else 2):
        yield from _norm(model)


def start(model: ModelShape) -> Iterator[Weight]:
    """Learned positions, and the norm of embeddings."""
    of = model.parts
    assert of
    if of.learned:
        yield Weight((of.learned, model.dim), 0)
    if of.embedding_norm:
        yield from _norm(model)


def output(model: ModelShape) -> Iterator[Weight]:
    """The bias of logits."""
    if model.parts and model.parts.output_bias:
        yield Weight((model.vocab,), 0)


def _known() -> Iterator[Known]:
    """Published weights by their names; of Qwen2.5, the length at the end of pre-training
    (arXiv:2412.15115 §3.3), and the epsilon of its larger instruct models (config.json)."""
    for size in ("7B", "13B", "32B"):
        yield Known(name=rf"olmo-?2-(?:\d+-)?{size}", shape={"size": f"olmo2-{size}"}, context=4096)
    for size in ("14B", "32B", "72B"):
        shape = {"size": f"qwen2.5-{size}", "norm_eps": 1e-6}
        yield Known(name=rf"qwen2\.5-{size}-instruct", shape=shape, context=32_768)
    for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B"):
        shape = {"size": f"qwen2.5-{size}"}
        yield Known(name=rf"qwen2\.5-{re.escape(size)}", shape=shape, context=32_768)
    for size in ("2B", "9B", "27B"):
        yield Known(name=f"gemma-2-{size}", shape={"size": f"gemma2-{size}"}, context=8192)
    yield Known(name="gemma-3-1b", shape={"size": "gemma3-1B"}, context=32_768)


FAMILY = Family(
    sizes=SIZES,
    kinds=KINDS,
    config_json=config_json,
    # transformers' own YaRN, with its factor on queries and keys.
    yarn={},
    attention=attention,
    linear=linear,
    feed_forward=feed_forward,
    norms=norms,
    last_norm=_norm,
    start=start,
    output=output,
    parts=parts,
    unscored=UNSCORED,
    known=tuple(_known()),
    experts=True,
    # Of the published kinds, only its files have a place for them.
    further=lambda model: model.parts is not None and model.parts.published == "glm4_moe",
    routed=True,
    windowed=lambda layer: True,
    scalings=("none", "llama", "yarn"),
)
