"""Llama 3: dense decoders with grouped-query attention (arXiv:2407.21783 §3.2), and other models
with the same computation."""

from typing import Any

from ..values import Architecture
from .config_json import LLAMA_DEFAULTS, Kind, head_width
from .family import Family, Known

_LLAMA3: dict[str, Any] = {
    "kv_heads": 8,
    "vocab": 128_256,
    "rope_theta": 500_000.0,
    "norm_eps": 1e-5,
}
_LLAMA2: dict[str, Any] = {"vocab": 32_000, "rope_theta": 10_000.0, "norm_eps": 1e-5}
_MISTRAL: dict[str, Any] = {
    "layers": 32,
    "dim": 4096,
    "heads": 32,
    "kv_heads": 8,
    "ffn": 14336,
    "norm_eps": 1e-5,
}
_SMOL: dict[str, Any] = {"vocab": 49_152, "norm_eps": 1e-5, "tied": True}
_STRETCHED = {"rope_scaling": "llama"}

SIZES: dict[str, dict[str, Any]] = {
    # arXiv:2407.21783, Table 3; 1B and 3B: the model cards of Llama 3.2.
    "1B": _LLAMA3 | {"layers": 16, "dim": 2048, "heads": 32, "ffn": 8192, "tied": True},
    "3B": _LLAMA3 | {"layers": 28, "dim": 3072, "heads": 24, "ffn": 8192, "tied": True},
    "8B": _LLAMA3 | {"layers": 32, "dim": 4096, "heads": 32, "ffn": 14336},
    "70B": _LLAMA3 | {"layers": 80, "dim": 8192, "heads": 64, "ffn": 28672},
    "405B": _LLAMA3 | {"layers": 126, "dim": 16384, "heads": 128, "ffn": 53248},
}

# Shapes: config.json of the published weights.
KNOWN = (
    Known(name=r"llama-?3\.[13]-(8B|70B|405B)", shape=_STRETCHED, context=131_072),
    Known(
        name=r"llama-?3\.2-(1B|3B)",
        shape={"rope_scaling": {"kind": "llama", "factor": 32.0}},
        context=131_072,
    ),
    Known(name=r"llama-?3-(8B|70B)", shape={}, context=8192),
    Known(
        name=r"llama-?2-7b",
        shape={"layers": 32, "dim": 4096, "heads": 32, "ffn": 11008, **_LLAMA2},
        context=4096,
    ),
    Known(
        name=r"llama-?2-13b",
        shape={"layers": 40, "dim": 5120, "heads": 40, "ffn": 13824, **_LLAMA2},
        context=4096,
    ),
    Known(
        name=r"llama-?2-70b",
        shape={"layers": 80, "dim": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672, **_LLAMA2},
        context=4096,
    ),
    Known(
        name=r"mistral-7b-(?:instruct-)?v0\.1",
        shape={**_MISTRAL, "vocab": 32_000, "rope_theta": 10_000.0},
        context=4096,
    ),
    Known(
        name=r"mistral-7b-(?:instruct-)?v0\.2",
        shape={**_MISTRAL, "vocab": 32_000, "rope_theta": 1e6},
        context=32_768,
    ),
    Known(
        name=r"mistral-7b-(?:instruct-)?v0\.3",
        shape={**_MISTRAL, "vocab": 32_768, "rope_theta": 1e6},
        context=32_768,
    ),
    Known(
        name=r"tinyllama[-_]1\.1b",
        shape={"layers": 22, "dim": 2048, "heads": 32, "kv_heads": 4, "ffn": 5632, **_LLAMA2},
        context=2048,
    ),
    Known(
        name=r"smollm2-135m",
        shape={
            "layers": 30,
            "dim": 576,
            "heads": 9,
            "kv_heads": 3,
            "ffn": 1536,
            "rope_theta": 1e5,
            **_SMOL,
        },
        context=8192,
    ),
    Known(
        name=r"smollm2-360m",
        shape={
            "layers": 32,
            "dim": 960,
            "heads": 15,
            "kv_heads": 5,
            "ffn": 2560,
            "rope_theta": 1e5,
            **_SMOL,
        },
        context=8192,
    ),
    Known(
        name=r"smollm2-1\.7b",
        shape={
            "layers": 24,
            "dim": 2048,
            "heads": 32,
            "ffn": 8192,
            "rope_theta": 1.3e5,
            **_SMOL,
        },
        context=8192,
    ),
)

_NO_EXPERTS = (None, "the family has no experts")
_NOT_NORMED = (False, "the family does not normalize queries and keys")
DENSE = {
    "num_local_experts": _NO_EXPERTS,
    "num_experts": _NO_EXPERTS,
    "use_qk_norm": _NOT_NORMED,
    "qk_norm": _NOT_NORMED,
}
KINDS = {
    "llama": Kind(
        defaults=LLAMA_DEFAULTS, fixed=DENSE, shape=head_width, example="Llama 3.2 or SmolLM2"
    ),
    "mistral": Kind(
        defaults={
            **LLAMA_DEFAULTS,
            "intermediate_size": 14_336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
            "use_sliding_window": True,
        },
        fixed=DENSE,
        shape=head_width,
    ),
}


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of a Llama."""
    return {"name": "Llama", "model_type": "llama", "head_dim": model.head_dim, "mlp_bias": False}


FAMILY = Family(
    sizes=SIZES,
    kinds=KINDS,
    config_json=config_json,
    known=KNOWN,
    complex_rotary=True,
    # torchtitan scales rotary frequencies as Llama 3.1 does, at every size.
    flavors={
        "debugmodel": {
            "layers": 6,
            "dim": 256,
            "heads": 16,
            "kv_heads": 16,
            "ffn": 768,
            "vocab": 2048,
            "rope_theta": 500_000.0,
            "tied": False,
            "norm_eps": 1e-5,
            **_STRETCHED,
        },
        **dict.fromkeys(SIZES, _STRETCHED),
    },
)
