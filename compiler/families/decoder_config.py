"""Which published kinds of model have which parts, and their `config.json`."""

from collections.abc import Callable, Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import written
from .family import Shape

USUAL: dict[str, Any] = {**vars(Parts(published=""))}
"""Llama's parts, complete."""
OLMO = {"norms": "after", "qk_norm": "width"}
_GELU = {"norm": "layer", "activation": "gelu", "gated": False}
_ANY = object()
COMPUTED: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {"biases": "qkv"},
    "smollm3": {"rotary_skips": _ANY},
    "olmo2": OLMO,
    "olmo3": {**OLMO, "window_skips": _ANY},
    "nemotron": {"norm": "layer", "activation": "relu2", "gated": False, "rotary": _ANY},
    "stablelm": {"norm": "layer", "rotary": _ANY, "biases": _ANY},
    "starcoder2": {"norm": "layer", "activation": "gelu_tanh", "gated": False, "biases": "all"},
    "gemma": {"activation": "gelu_tanh", "scaled": True},
    "gemma2": {
        "norms": "both",
        "activation": "gelu_tanh",
        "scaled": True,
        "window_skips": 2,
        "attention_cap": _ANY,
        "logit_cap": _ANY,
        "attention_scale": _ANY,
    },
    "gemma3_text": {
        "norms": "both",
        "qk_norm": "head",
        "activation": "gelu_tanh",
        "scaled": True,
        "window_skips": _ANY,
        "attention_cap": _ANY,
        "logit_cap": _ANY,
        "attention_scale": _ANY,
        "window_theta": _ANY,
    },
    "granite": {
        "attention_scale": _ANY,
        "embedding_scale": _ANY,
        "residual_scale": _ANY,
        "logit_scale": _ANY,
    },
    "arcee": {"activation": "relu2", "gated": False},
    "mistral": {},
    "phi3": {"rotary": _ANY},
    "gpt2": {**_GELU, "activation": "gelu_tanh", "biases": "all", "learned": _ANY},
    "gpt_neox": {**_GELU, "biases": "all", "parallel": _ANY, "rotary": _ANY},
    "bloom": {
        **_GELU,
        "activation": "gelu_tanh",
        "biases": "all",
        "alibi": True,
        "embedding_norm": True,
    },
    "falcon": {**_GELU, "biases": _ANY, "parallel": _ANY},
}
"""model_type → the parts that it has, besides Llama's."""


def _whole(shape: Shape) -> bool:
    """Whether heads together are as wide as the model."""
    return shape["head_dim"] * shape["heads"] == shape["dim"]


def _plain(shape: Shape) -> bool:
    """Whether besides no layer has a window."""
    return shape["window"] == 0 and _whole(shape)


def _multi_head(shape: Shape) -> bool:
    return _plain(shape) and shape["kv_heads"] == shape["heads"]


_FITS: Mapping[str, Callable[[Shape], bool]] = {
    "olmo3": lambda shape: shape["window"] > 0,
    "starcoder2": lambda shape: True,
    "stablelm": lambda shape: _plain(shape) and shape["parts"]["biases"] != "all",
    "gemma2": lambda shape: shape["window"] > 0,
    "gemma3_text": lambda shape: shape["window"] > 0,
    "granite": _plain,
    "mistral": lambda shape: True,
    "phi3": lambda shape: _whole(shape) and shape.get("rope_scaling", "none") == "none",
    "gpt2": lambda shape: _multi_head(shape) and shape["parts"]["learned"] > 0,
    "gpt_neox": lambda shape: _multi_head(shape) and shape["parts"]["parallel"] != "one",
    "bloom": lambda shape: _multi_head(shape) and shape["ffn"] == 4 * shape["dim"],
    "falcon": lambda shape: (
        _plain(shape) and shape["parts"]["parallel"] != "none" and shape["parts"]["biases"] != "qkv"
    ),
}
"""model_type → whether it has such shapes; the others have none with windows."""
_NEAR_AS_BEFORE = ("olmo3", "gemma3_text")
"""model_types whose layers with windows have positions of their own, which no scaling changes."""
CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "smollm3": "SmolLM3",
    "olmo2": "Olmo2",
    "olmo3": "Olmo3",
    "nemotron": "Nemotron",
    "stablelm": "StableLm",
    "starcoder2": "Starcoder2",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
    "granite": "Granite",
    "arcee": "Arcee",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "seed_oss": "SeedOss",
    "gpt2": "GPT2",
    "gpt_neox": "GPTNeoX",
    "bloom": "Bloom",
    "falcon": "Falcon",
}
ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""Names of activations here → in transformers."""


def published(given: Mapping[str, Any], shape: Shape) -> str:
    """The model_type of transformers that computes these parts of a shape; "": none does."""
    stretched = shape.get("rope_scaling", "none") != "none"
    for kind, has in COMPUTED.items():
        wanted = {**USUAL, **has, "published": ""}
        apart = {name for name, value in wanted.items() if value is _ANY}
        same = all(given[name] == value for name, value in wanted.items() if name not in apart)
        fits = _FITS.get(kind, lambda shape: shape["window"] == 0)
        # Here layers with windows rotate as before a scaling.
        other = stretched and shape["window"] > 0 and kind not in _NEAR_AS_BEFORE
        if same and not other and fits({**shape, "parts": given}):
            return kind
    return ""


_UNNAMED = {
    "gpt2": ("hidden_act",),
    "bloom": ("hidden_act",),
    # transformers computes the width of a head, and lets nobody say it.
    "falcon": ("hidden_act", "head_dim"),
    "granite": ("head_dim",),
    "phi3": ("head_dim",),
}
"""model_type → the keys that it has under another name, or not at all."""


def config_json(model: Architecture) -> dict[str, Any]:
    """The `config.json` of the published kind of model with these parts."""
    of = model.parts
    assert of
    rope: dict[str, Any] = written(model, {})["rope_parameters"]
    if of.rotary != 1:
        rope["partial_rotary_factor"] = of.rotary
    found: dict[str, Any] = {
        "name": CLASSES.get(of.published, "Decoder"),
        "model_type": of.published,
        "head_dim": model.head_dim,
        "hidden_act": ACTIVATIONS[of.activation],
        "rope_parameters": rope,
        # Some have one by default, which need not be in the vocabulary.
        "pad_token_id": None,
    }
    for key in _UNNAMED.get(of.published, ()):
        del found[key]
    return found | _OWN.get(of.published, _nothing)(model, of, rope)


def _gemma2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_activation": ACTIVATIONS[of.activation],
        "query_pre_attn_scalar": _divisor(model, of),
        "sliding_window": model.window,
        "attn_logit_softcapping": of.attention_cap or None,
        "final_logit_softcapping": of.logit_cap or None,
    }


def _divisor(model: Architecture, of: Parts) -> float:
    """The number by whose square root scores are divided."""
    if not of.attention_scale:
        return model.head_dim
    found = of.attention_scale**-2
    return round(found) if abs(found - round(found)) < 1e-9 * found else found


def _gemma3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    near = {"rope_type": "default", "rope_theta": of.window_theta or model.rope_theta}
    return _gemma2(model, of, rope) | {
        "layer_types": _layer_types(model, of),
        "rope_parameters": {"full_attention": rope, "sliding_attention": near},
    }


def _granite(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "attention_multiplier": of.attention_scale or model.head_dim**-0.5,
        "embedding_multiplier": of.embedding_scale,
        "residual_multiplier": of.residual_scale,
        "logits_scaling": 1 / of.logit_scale,
    }


def _mistral(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"sliding_window": model.window or None}


def _phi3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "sliding_window": model.window or None,
        # transformers takes its default, 4096, for the length before a scaling.
        "original_max_position_embeddings": model.context,
        "rope_parameters": rope | {"partial_rotary_factor": of.rotary},
    }


def _seed_oss(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"attention_bias": True, "attention_out_bias": False}


def _layer_types(model: Architecture, of: Parts) -> list[str]:
    return [
        "sliding_attention" if of.near(layer) else "full_attention" for layer in range(model.layers)
    ]


def _gpt2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "n_embd": model.dim,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.ffn,
        "n_positions": of.learned,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm_eps,
    }


def _gpt_neox(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer_norm_eps": model.norm_eps,
        "use_parallel_residual": of.parallel == "two",
        "attention_bias": True,
        "rope_parameters": rope | {"partial_rotary_factor": of.rotary},
    }


def _bloom(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "n_layer": model.layers,
        "n_head": model.heads,
        "layer_norm_epsilon": model.norm_eps,
        "seq_length": model.context,
    }


def _falcon(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_kv_heads": model.kv_heads,
        "ffn_hidden_size": model.ffn,
        "layer_norm_epsilon": model.norm_eps,
        "new_decoder_architecture": True,
        "num_ln_in_parallel_attn": 2 if of.parallel == "two" else 1,
        "bias": of.biases == "all",
        "activation": ACTIVATIONS[of.activation],
    }


def _nothing(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {}


def _olmo3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "sliding_window": model.window,
        "layer_types": _layer_types(model, of),
        # Layers with windows rotate as before the scaling.
        "rope_parameters": {
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": model.rope_theta},
        },
    }


def _smollm3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "no_rope_layers": [int(of.rotates(layer)) for layer in range(model.layers)],
        "no_rope_layer_interval": of.rotary_skips,
    }


def _stablelm(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"layer_norm_eps": model.norm_eps, "use_qkv_bias": of.biases == "qkv"} | _rotary(of)


def _nemotron(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"norm_eps": model.norm_eps} | _rotary(of)


def _rotary(of: Parts) -> dict[str, Any]:
    return {"partial_rotary_factor": of.rotary}


def _starcoder2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "norm_epsilon": model.norm_eps,
        "use_bias": True,
        "sliding_window": model.window or None,
    }


_OWN: Mapping[str, Callable[[Architecture, Parts, dict[str, Any]], dict[str, Any]]] = {
    "olmo3": _olmo3,
    "smollm3": _smollm3,
    "stablelm": _stablelm,
    "nemotron": _nemotron,
    "starcoder2": _starcoder2,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "granite": _granite,
    "mistral": _mistral,
    "phi3": _phi3,
    "seed_oss": _seed_oss,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "falcon": _falcon,
}
