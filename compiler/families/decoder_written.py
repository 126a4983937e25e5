"""What `config.json` of decoders has besides the keys of all: Llama's kin, and GPT's."""

from collections.abc import Callable, Mapping
from typing import Any

from ..values import Architecture, Parts

ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "xielu": "xielu",
}
"""Names of activations here → in transformers."""
Written = Callable[[Architecture, Parts, dict[str, Any]], dict[str, Any]]
"""Keys from a model, its parts, and what is said of rotary positions."""


def layer_types(model: Architecture, of: Parts) -> list[str]:
    """Which layers have a window."""
    near = [model.window > 0 and of.near(layer) for layer in range(model.layers)]
    return ["sliding_attention" if each else "full_attention" for each in near]


def partial(of: Parts) -> dict[str, Any]:
    """The share of a head's elements that rotate."""
    return {"partial_rotary_factor": of.rotary}


def biases(of: Parts) -> dict[str, Any]:
    """Where Llama and its kin have biases."""
    _, outside, fed = of.biased
    return {"attention_bias": outside, "mlp_bias": fed}


def _llama(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return biases(of)


def _attention(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"attention_bias": of.biases != "none"}


def _cohere(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer_norm_eps": model.norm_eps,
        "logit_scale": of.logit_scale,
        "use_qk_norm": of.qk_norm == "layers",
        "attention_bias": of.biases != "none",
    }


def _cohere2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer_norm_eps": model.norm_eps,
        "logit_scale": of.logit_scale,
        "attention_bias": of.biases != "none",
        "sliding_window": model.window,
        "layer_types": layer_types(model, of),
    }


def _olmo(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"clip_qkv": of.qkv_clip or None, "attention_bias": of.biases != "none"}


def _glm(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    share = partial(of)
    return {**share, "attention_bias": of.biases == "qkv", "rope_parameters": rope | share}


def _exaone4(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "sliding_window": model.window or None,
        "sliding_window_pattern": of.window_skips if model.window else None,
        "layer_types": layer_types(model, of),
    }


def _vaultgemma(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_activation": ACTIVATIONS[of.activation],
        "query_pre_attn_scalar": divisor(model, of),
        "sliding_window": model.window,
        "layer_types": layer_types(model, of),
        "attn_logit_softcapping": of.attention_cap or None,
        "final_logit_softcapping": of.logit_cap or None,
    }


def divisor(model: Architecture, of: Parts) -> float:
    """The number by whose square root scores are divided."""
    if not of.attention_scale:
        return model.head_dim
    found = of.attention_scale**-2
    return round(found) if abs(found - round(found)) < 1e-9 * found else found


def factors(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    """Granite's factors."""
    return {
        "attention_multiplier": of.attention_scale or model.head_dim**-0.5,
        "embedding_multiplier": of.embedding_scale,
        "residual_multiplier": of.residual_scale,
        "logits_scaling": 1 / of.logit_scale,
    }


def _hyperclovax(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        **biases(of),
        "attention_multiplier": of.attention_scale or model.head_dim**-0.5,
        "embedding_multiplier": of.embedding_scale,
        "residual_multiplier": of.residual_scale,
        "logits_scaling": of.logit_scale,
        "use_post_norm": of.norms == "both",
    }


def _nanochat(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    cap = {"final_logit_softcapping": of.logit_cap or None}
    return {**cap, "attention_bias": of.biases == "attention"}


def _jais2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"layer_norm_eps": model.norm_eps, **biases(of)}


def _ernie(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"use_bias": of.biases == "all"}


def _sized(model: Architecture, of: Parts) -> dict[str, Any]:
    """What GPT-2 and its kin call their sizes."""
    return {
        "n_embd": model.dim,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.ffn,
        "layer_norm_epsilon": model.norm_eps,
        "activation_function": "gelu_new",
    }


def _gpt_bigcode(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    # transformers derives the number of key-value heads, and reads no other.
    own = {"multi_query": model.kv_heads == 1, "activation_function": "gelu_pytorch_tanh"}
    return {**_sized(model, of), **own, "n_positions": of.learned}


def _gptj(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    rotary = {"rotary_dim": int(model.head_dim * of.rotary)}
    return {**_sized(model, of), **rotary, "n_positions": model.context}


def _gpt_neo(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    near = [model.window > 0 and of.near(layer) for layer in range(model.layers)]
    return {
        "num_layers": model.layers,
        "num_heads": model.heads,
        "attention_types": [[["local" if each else "global" for each in near], 1]],
        "window_size": model.window or 256,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.norm_eps,
        "max_position_embeddings": of.learned,
    }


def _phi(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_act": "gelu_new",
        "layer_norm_eps": model.norm_eps,
        "qk_layernorm": of.qk_norm == "layer",
        **partial(of),
        "rope_parameters": rope | partial(of),
    }


def _persimmon(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return _phi(model, of, rope) | {"hidden_act": ACTIVATIONS[of.activation]}


def _mpt(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "d_model": model.dim,
        "n_heads": model.heads,
        "n_layers": model.layers,
        "max_seq_len": model.context,
        "layer_norm_epsilon": model.norm_eps,
        "attn_config": {
            "alibi": True,
            "clip_qkv": of.qkv_clip or None,
            "softmax_scale": of.attention_scale or None,
        },
    }


def _opt(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "ffn_dim": model.ffn,
        "word_embed_proj_dim": model.dim,
        "max_position_embeddings": of.learned,
        "activation_function": ACTIVATIONS[of.activation],
    }


def _biogpt(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"max_position_embeddings": of.learned, "scale_embedding": of.scaled}


WRITTEN: Mapping[str, Written] = {
    "llama": _llama,
    "qwen3": _attention,
    "cohere": _cohere,
    "cohere2": _cohere2,
    "olmo": _olmo,
    "glm": _glm,
    "glm4": _glm,
    "exaone4": _exaone4,
    "vaultgemma": _vaultgemma,
    "hyperclovax": _hyperclovax,
    "hunyuan_v1_dense": _attention,
    "apertus": _attention,
    "nanochat": _nanochat,
    "jais2": _jais2,
    "ernie4_5": _ernie,
    "helium": _llama,
    "cwm": lambda model, of, rope: {
        "sliding_window": model.window,
        "layer_types": layer_types(model, of),
    },
    "ministral": lambda model, of, rope: {"sliding_window": model.window or None},
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neo": _gpt_neo,
    "gptj": _gptj,
    "codegen": _gptj,
    "phi": _phi,
    "persimmon": _persimmon,
    "mpt": _mpt,
    "opt": _opt,
    "biogpt": _biogpt,
}
"""model_type → its own keys."""
_HEADS = ("head_dim",)
UNNAMED: Mapping[str, tuple[str, ...]] = {
    "cohere": _HEADS,
    "cohere2": _HEADS,
    "olmo": _HEADS,
    "exaone4": _HEADS,
    "apertus": _HEADS,
    "nanochat": _HEADS,
    "gpt_bigcode": ("hidden_act", *_HEADS),
    "gpt_neo": ("hidden_act", *_HEADS),
    "gptj": ("hidden_act", *_HEADS),
    "codegen": ("hidden_act", *_HEADS),
    "phi": _HEADS,
    "persimmon": _HEADS,
    "mpt": ("hidden_act", *_HEADS),
    "opt": ("hidden_act", *_HEADS),
    "biogpt": _HEADS,
    "vaultgemma": ("hidden_act",),
}
"""model_type → the keys that it has under another name, or not at all."""
