"""Which published kinds of model have which parts, and their `config.json`."""

from collections.abc import Callable, Mapping
from typing import Any

from ..values import Architecture, Parts
from .config_json import written
from .decoder_computed import ANY, COMPUTED, USUAL
from .decoder_written import (
    ACTIVATIONS,
    UNNAMED,
    WRITTEN,
    biases,
    divisor,
    factors,
    layer_types,
    partial,
)
from .family import Shape
from .further_mixed_kinds import FURTHER_CLASSES, FURTHER_WRITTEN
from .linear_kinds import LINEAR_CLASSES, LINEAR_COMPUTED, LINEAR_WRITTEN
from .mixed_computed import routing
from .mixed_kinds import MIXED_CLASSES, MIXED_WRITTEN
from .other_mixed_kinds import OTHER_CLASSES, OTHER_WRITTEN


def _whole(shape: Shape) -> bool:
    """Whether heads together are as wide as the model."""
    return shape["head_dim"] * shape["heads"] == shape["dim"]


def _plain(shape: Shape) -> bool:
    """Whether besides no layer has a window."""
    return shape["window"] == 0 and _whole(shape)


def _multi_head(shape: Shape) -> bool:
    return _plain(shape) and shape["kv_heads"] == shape["heads"]


def _biases(*kinds: str) -> Callable[[Shape], bool]:
    """Whether biases are where such a model has them, and besides no layer has a window."""
    return lambda shape: shape["window"] == 0 and shape["parts"]["biases"] in kinds


def _whole_biases(*kinds: str) -> Callable[[Shape], bool]:
    """The same, of models whose heads together are as wide as they are."""
    return lambda shape: _plain(shape) and shape["parts"]["biases"] in kinds


def _unrotated_whole(shape: Shape) -> bool:
    """Whether the layers that see the whole document are those without positions."""
    of = shape["parts"]
    skips = of["window_skips"] if shape["window"] else 0
    return of["rotary_skips"] == skips


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


_FIXED_EPS = 1e-5
"""torch's epsilon of LayerNorms, which some models do not change."""
_FITS: Mapping[str, Callable[[Shape], bool]] = {
    "olmo3": lambda shape: shape["window"] > 0,
    "starcoder2": lambda shape: True,
    "llama": _biases("none", "attention", "ffn", "all"),
    "nemotron": _biases("none", "attention", "ffn", "all"),
    "qwen3": _biases("none", "attention"),
    "cohere": lambda shape: (
        _plain(shape)
        and shape["parts"]["biases"] in ("none", "attention")
        and shape["parts"]["qk_norm"] in ("none", "layers")
    ),
    "cohere2": lambda shape: (
        _whole(shape)
        and shape["window"] > 0
        and shape["parts"]["biases"] in ("none", "attention")
        and _unrotated_whole(shape)
    ),
    "olmo": lambda shape: (
        _whole_biases("none", "attention")(shape) and shape["norm_eps"] == _FIXED_EPS
    ),
    "glm": _biases("none", "qkv"),
    "glm4": _biases("none", "qkv"),
    "exaone4": lambda shape: _whole(shape) and _unrotated_whole(shape),
    "vaultgemma": lambda shape: shape["window"] > 0,
    "hyperclovax": _biases("none", "attention", "ffn", "all"),
    "hunyuan_v1_dense": _biases("none", "attention"),
    "apertus": _whole_biases("none", "attention"),
    "nanochat": _whole_biases("none", "attention"),
    "gpt_bigcode": lambda shape: (
        _plain(shape) and shape["kv_heads"] == 1 and shape["parts"]["learned"] > 0
    ),
    "gpt_neo": lambda shape: (
        _whole(shape) and shape["kv_heads"] == shape["heads"] and shape["parts"]["learned"] > 0
    ),
    "gptj": lambda shape: (
        # transformers has no other base there, and no scaling.
        _multi_head(shape)
        and shape["rope_theta"] == 10_000
        and shape.get("rope_scaling", "none") == "none"
    ),
    "phi": lambda shape: _plain(shape) and shape["parts"]["qk_norm"] in ("none", "layer"),
    "persimmon": lambda shape: (
        _multi_head(shape) and shape["parts"]["qk_norm"] in ("none", "layer")
    ),
    "mpt": lambda shape: (
        _multi_head(shape) and shape["ffn"] == 4 * shape["dim"] and _power_of_two(shape["heads"])
    ),
    "opt": lambda shape: (
        _multi_head(shape) and shape["parts"]["learned"] > 0 and shape["norm_eps"] == _FIXED_EPS
    ),
    "biogpt": lambda shape: (
        _multi_head(shape) and shape["parts"]["learned"] > 0 and shape["norm_eps"] == _FIXED_EPS
    ),
    "stablelm": lambda shape: (
        _whole_biases("none", "qkv")(shape)
        and shape["parts"]["qk_norm"] in ("none", "layers")
        and shape["parts"]["parallel"] != "two"
    ),
    "gemma2": lambda shape: shape["window"] > 0,
    "gemma3_text": lambda shape: shape["window"] > 0,
    "granite": _plain,
    "mistral": lambda shape: True,
    "cwm": lambda shape: shape["window"] > 0,
    "mixtral": lambda shape: True,
    "qwen3_moe": _biases("none", "attention"),
    "olmoe": _whole_biases("none", "attention"),
    "dots1": lambda shape: _biases("none", "attention")(shape) and shape["experts"].shared > 0,
    "glm4_moe": lambda shape: (
        _biases("none", "qkv")(shape)
        and shape["experts"].shared > 0
        and shape["parts"]["qk_norm"] in ("none", "head")
    ),
    "granitemoe": _plain,
    "granitemoeshared": _plain,
    "flex_olmo": _whole_biases("none", "attention"),
    "hunyuan_v1_moe": _biases("none", "attention"),
    "qwen2_moe": _biases("none", "qkv"),
    "qwen3_next": lambda shape: shape["parts"]["linear_heads"] > 0,
    "qwen3_5_moe_text": lambda shape: shape["parts"]["linear_heads"] > 0,
    "exaone_moe": lambda shape: (
        shape["window"] > 0 and _unrotated_whole(shape) and shape["experts"].shared > 0
    ),
    "afmoe": lambda shape: (
        shape["window"] > 0
        and shape["parts"]["biases"] in ("none", "attention")
        and _unrotated_whole(shape)
        and shape["experts"].shared > 0
    ),
    "dbrx": lambda shape: (
        _plain(shape) and shape["parts"]["qkv_clip"] > 0 and shape["norm_eps"] == _FIXED_EPS
    ),
    "mellum": lambda shape: (
        shape["window"] > 0 and shape["parts"]["biases"] in ("none", "attention")
    ),
    "phi3": lambda shape: _whole(shape) and shape.get("rope_scaling", "none") == "none",
    "gpt2": lambda shape: _multi_head(shape) and shape["parts"]["learned"] > 0,
    "gpt_neox": lambda shape: _multi_head(shape) and shape["parts"]["parallel"] != "one",
    "bloom": lambda shape: _multi_head(shape) and shape["ffn"] == 4 * shape["dim"],
    "falcon": lambda shape: (
        _plain(shape) and shape["parts"]["parallel"] != "none" and shape["parts"]["biases"] != "qkv"
    ),
}
"""model_type → whether it has such shapes; the others have none with windows."""
_NEAR_AS_BEFORE = ("olmo3", "gemma3_text", "mellum")
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
    "qwen3": "Qwen3",
    "cohere": "Cohere",
    "cohere2": "Cohere2",
    "olmo": "Olmo",
    "glm": "Glm",
    "glm4": "Glm4",
    "exaone4": "Exaone4",
    "vaultgemma": "VaultGemma",
    "hyperclovax": "HyperCLOVAX",
    "hunyuan_v1_dense": "HunYuanDenseV1",
    "apertus": "Apertus",
    "nanochat": "NanoChat",
    "jais2": "Jais2",
    "gpt_bigcode": "GPTBigCode",
    "gpt_neo": "GPTNeo",
    "gptj": "GPTJ",
    "phi": "Phi",
    "persimmon": "Persimmon",
    "mpt": "Mpt",
    "opt": "OPT",
    "biogpt": "BioGpt",
    # Read under these names, and written as a llama, a gptj or a mistral.
    "cwm": "Cwm",
    "exaone": "Llama",
    "internlm3": "Llama",
    "iquestcoder": "Llama",
    "helium": "Helium",
    "ernie4_5": "Ernie4_5",
    "codegen": "CodeGen",
    "ministral": "Ministral",
    **MIXED_CLASSES,
    **FURTHER_CLASSES,
    **OTHER_CLASSES,
    **LINEAR_CLASSES,
}


UNSCORED = frozenset(
    (
        *("granite", "cohere", "cohere2", "vaultgemma", "hyperclovax", "apertus"),
        *("nanochat", "jais2", "cwm"),
        *("olmoe", "dots1", "glm4_moe", "minimax_m2", "ernie4_5_moe", "qwen3_5_moe_text"),
        *("granitemoe", "granitemoeshared", "flex_olmo", "exaone_moe"),
        *("hy_v3", "mellum", "afmoe", "dbrx"),
    )
)
"""model_types that are exported, and of which transformers (5.24) has no classifier."""
_ENDS_BEGIN = ("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "starcoder2")
"""model_types whose texts begin with token 50256, unless told otherwise."""
APART = {
    "gpt2": {"ForCausalLM": "GPT2LMHeadModel"},
    "gemma3_text": {"ForSequenceClassification": "Gemma3TextForSequenceClassification"},
}
"""model_type → classes that transformers calls otherwise than by these names and their ends."""


def published(given: Mapping[str, Any], shape: Shape) -> str:
    """The model_type of transformers that computes these parts of a shape; "": none does."""
    stretched = shape.get("rope_scaling", "none") != "none"
    experts = shape.get("experts")
    dense = LINEAR_COMPUTED if given["linear_heads"] else COMPUTED
    for kind, has in routing(experts) if experts else dense.items():
        wanted = {**USUAL, **has, "published": "", "window_scaled": ANY}
        apart = {name for name, value in wanted.items() if value is ANY}
        same = all(given[name] == value for name, value in wanted.items() if name not in apart)
        fits = _FITS.get(kind, lambda shape: shape["window"] == 0)
        # Unless told otherwise, layers with windows rotate here as before a scaling.
        near_too = given["window_scaled"]
        other = stretched and shape["window"] > 0 and near_too == (kind in _NEAR_AS_BEFORE)
        if same and not other and fits({**shape, "parts": given}):
            return kind
    return ""


_UNNAMED = {
    "gpt2": ("hidden_act",),
    "bloom": ("hidden_act",),
    **UNNAMED,
    # transformers computes the width of a head, and lets nobody say it.
    "falcon": ("hidden_act", "head_dim"),
    "granite": ("head_dim",),
    "granitemoe": ("head_dim",),
    "granitemoeshared": ("head_dim",),
    "flex_olmo": ("head_dim",),
    "phi3": ("head_dim",),
    "dbrx": ("hidden_act", "head_dim"),
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
        "classes": APART.get(of.published, {}),
        # Some have one by default, which need not be in the vocabulary.
        "pad_token_id": None,
        **({"bos_token_id": None} if of.published in _ENDS_BEGIN else {}),
    }
    for key in _UNNAMED.get(of.published, ()):
        del found[key]
    return found | _OWN.get(of.published, _nothing)(model, of, rope)


def _gemma2(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_activation": ACTIVATIONS[of.activation],
        "query_pre_attn_scalar": divisor(model, of),
        "sliding_window": model.window,
        "attn_logit_softcapping": of.attention_cap or None,
        "final_logit_softcapping": of.logit_cap or None,
    }


def _gemma3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    near = {"rope_type": "default", "rope_theta": of.window_theta or model.rope_theta}
    return _gemma2(model, of, rope) | {
        "layer_types": layer_types(model, of),
        "rope_parameters": {"full_attention": rope, "sliding_attention": near},
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
        "layer_types": layer_types(model, of),
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
    return {
        "layer_norm_eps": model.norm_eps,
        "use_qkv_bias": of.biases == "qkv",
        "qk_layernorm": of.qk_norm == "layers",
        "use_parallel_residual": of.parallel == "one",
        **partial(of),
    }


def _nemotron(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {"norm_eps": model.norm_eps} | partial(of) | biases(of)


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
    "granite": factors,
    "mistral": _mistral,
    "phi3": _phi3,
    "seed_oss": _seed_oss,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "falcon": _falcon,
    **WRITTEN,
    **MIXED_WRITTEN,
    **FURTHER_WRITTEN,
    **OTHER_WRITTEN,
    **LINEAR_WRITTEN,
}
