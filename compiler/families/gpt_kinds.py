"""How `config.json` is read of decoders of GPT's kin: two matrices in feed-forward layers, norms
with means, and biases."""

from typing import Any

from .config_json import Kind, Values
from .decoder_computed import COMPUTED
from .decoder_reading import share, whole_heads

_GELU = ("gelu_new", "feed-forward layers have GELU")
_SIZES = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner",),
    "max_position_embeddings": ("n_positions",),
}


def _has(kind: str) -> dict[str, Any]:
    """The parts that all models of a kind have."""
    usual = ("norm", "activation", "gated", "biases", "parallel", "output_bias", "alibi")
    return {name: value for name, value in COMPUTED[kind].items() if name in usual}


def _read_gpt_bigcode(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = _has("gpt_bigcode") | {"learned": values.number("max_position_embeddings")}
    return whole_heads(shape, **of) | ({"kv_heads": 1} if values.get("multi_query") else {})


def _local(given: Any, layers: int) -> list[bool] | None:
    """Which layers have a window; None: every other one, from the second."""
    if not isinstance(given, list):
        return None
    found: list[bool] = []
    for each in given:
        kinds, times = each if isinstance(each, list) and len(each) == 2 else ([], 0)
        if not isinstance(kinds, list) or not isinstance(times, int) or times > layers:
            return []
        for _ in range(times):
            found += [kind == "local" for kind in kinds]
        if len(found) > layers:
            return []
    return found


def _read_gpt_neo(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    layers, near = shape["layers"], _local(values.get("attention_types"), shape["layers"])
    plain = near is None or near == [at % 2 == 1 for at in range(len(near))]
    if near is not None and (len(near) != layers or not (plain or len({*near}) == 1)):
        values.problem(
            "attention_types",
            "says attention_types that are not `global` and `local` in turn, one for each layer",
            "use other weights, such as GPT-Neo 1.3B or TinyStories 33M",
        )
    windowed = near is None or any(near)
    turns = {"window_skips": 2, "window_first": True} if plain and windowed else {}
    of = {**_has("gpt_neo"), **turns, "learned": values.number("max_position_embeddings")}
    window = values.number("window_size", 256) if windowed else 0
    found = whole_heads(shape, **of, attention_scale=1.0)
    return found | {"window": window}


def _read_gptj(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    width = max(shape["dim"] // shape["heads"], 1)
    turned = values.number("rotary_dim", width) / width
    return whole_heads(shape, **_has("gptj"), rotary=turned)


def _read_normed(kind: str) -> Any:
    def read(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
        norm = "layer" if values.get("qk_layernorm") else "none"
        return whole_heads(shape, **_has(kind), rotary=share(values), qk_norm=norm)

    return read


def _read_mpt(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    given = values.config.get("attn_config")
    of: dict[str, Any] = given if isinstance(given, dict) else {}
    for key, wanted, why in (
        ("alibi", True, "positions are ALiBi's"),
        ("qk_ln", False, "queries and keys are not normed"),
        ("prefix_lm", False, "tokens see only those before them"),
        ("attn_type", "multihead_attention", "every head has keys of its own"),
        ("alibi_bias_max", 8, "the steepest slopes are those of ALiBi"),
    ):
        if of.get(key, wanted) != wanted:
            values.problem(
                "attn_config",
                f"says {key} = {of[key]!r} in attn_config: {why}",
                "use other weights, such as MPT 7B",
            )
    if shape["heads"] & (shape["heads"] - 1):
        values.problem(
            "n_heads",
            f"has {shape['heads']} heads with ALiBi: their slopes are in another order here",
            "use weights whose heads are a power of 2, such as MPT 7B and 30B",
        )
    clip = values.real(of, "clip_qkv", 0.0) if of.get("clip_qkv") else 0.0
    factor = values.real(of, "softmax_scale", 0.0) if of.get("softmax_scale") else 0.0
    return whole_heads(shape, **_has("mpt"), qkv_clip=clip, attention_scale=factor)


def _read_opt(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    width = values.number("word_embed_proj_dim", shape["dim"])
    if width != shape["dim"]:
        values.problem(
            "word_embed_proj_dim",
            f"has embeddings of the width {width} in a model of the width {shape['dim']}",
            "use other weights, such as OPT 1.3B",
        )
    of = _has("opt") | {"learned": values.number("max_position_embeddings")}
    return whole_heads(shape, **of) | {"norm_eps": 1e-5}


def _read_biogpt(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = _has("biogpt") | {"learned": values.number("max_position_embeddings")}
    scaled = bool(values.get("scale_embedding"))
    # transformers reads no epsilon (`modeling_biogpt.py`).
    return whole_heads(shape, **of, scaled=scaled) | {"norm_eps": 1e-5}


_GPTJ = {
    "vocab_size": 50_400,
    "n_positions": 2048,
    "n_embd": 4096,
    "n_layer": 28,
    "n_head": 16,
    "n_inner": None,
    "rotary_dim": 64,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}
GPTS = {
    "gpt_bigcode": Kind(
        example="StarCoderBase 1B",
        defaults={
            "vocab_size": 50_257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "multi_query": True,
        },
        read=("num_key_value_heads", "scale_attention_softmax_in_fp32", "n_ctx"),
        fixed={
            "activation_function": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "scale_attn_weights": (True, "scores are scaled by the width of a head"),
        },
        eps="layer_norm_epsilon",
        names=_SIZES,
        shape=_read_gpt_bigcode,
    ),
    "gpt_neo": Kind(
        example="GPT-Neo 1.3B",
        defaults={
            "vocab_size": 50_257,
            "max_position_embeddings": 2048,
            "hidden_size": 2048,
            "num_layers": 24,
            "num_heads": 16,
            "intermediate_size": None,
            "window_size": 256,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        read=("attention_types", "attention_layers", "embed_dropout", "resid_dropout"),
        fixed={"activation_function": _GELU},
        eps="layer_norm_epsilon",
        names={"num_hidden_layers": ("num_layers",), "num_attention_heads": ("num_heads",)},
        shape=_read_gpt_neo,
    ),
    "gptj": Kind(
        example="GPT-J 6B",
        defaults=_GPTJ,
        read=("n_ctx", "rotary"),
        fixed={"activation_function": _GELU},
        eps="layer_norm_epsilon",
        names=_SIZES,
        shape=_read_gptj,
    ),
    "codegen": Kind(
        example="CodeGen 2B",
        defaults=_GPTJ,
        read=("n_ctx",),
        fixed={"activation_function": _GELU},
        eps="layer_norm_epsilon",
        names=_SIZES,
        shape=_read_gptj,
    ),
    "phi": Kind(
        example="Phi-2",
        defaults={
            "vocab_size": 51_200,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": None,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "partial_rotary_factor": 0.5,
            "qk_layernorm": False,
        },
        fixed={"hidden_act": _GELU},
        eps="layer_norm_eps",
        shape=_read_normed("phi"),
    ),
    "persimmon": Kind(
        example="Persimmon 8B",
        defaults={
            "vocab_size": 262_144,
            "hidden_size": 4096,
            "intermediate_size": 16_384,
            "num_hidden_layers": 36,
            "num_attention_heads": 64,
            "max_position_embeddings": 16_384,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "partial_rotary_factor": 0.5,
            "qk_layernorm": True,
        },
        fixed={"hidden_act": ("relu2", "feed-forward layers have squared ReLU")},
        eps="layer_norm_eps",
        shape=_read_normed("persimmon"),
    ),
    "mpt": Kind(
        example="MPT 7B",
        defaults={
            "vocab_size": 50_368,
            "d_model": 2048,
            "n_heads": 16,
            "n_layers": 24,
            "max_seq_len": 2048,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        read=(
            "attn_config",
            "embedding_fraction",
            "expansion_ratio",
            "init_device",
            "learned_pos_emb",
            "norm_type",
            "emb_pdrop",
            "verbose",
            "init_config",
        ),
        fixed={
            "no_bias": (True, "matrices and norms have no biases"),
            "logit_scale": (None, "logits are not scaled"),
        },
        eps="layer_norm_epsilon",
        names={
            "hidden_size": ("d_model",),
            "num_hidden_layers": ("n_layers",),
            "num_attention_heads": ("n_heads",),
            "max_position_embeddings": ("max_seq_len",),
        },
        shape=_read_mpt,
    ),
    "opt": Kind(
        example="OPT 1.3B",
        defaults={
            "vocab_size": 50_272,
            "hidden_size": 768,
            "ffn_dim": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-5,
        },
        read=(
            "word_embed_proj_dim",
            "activation_dropout",
            "layerdrop",
            "init_std",
        ),
        fixed={
            "activation_function": ("relu", "feed-forward layers have ReLU"),
            "do_layer_norm_before": (True, "norms come before attention"),
            "_remove_final_layer_norm": (False, "there is a norm before the output"),
            "enable_bias": (True, "all matrices of a layer have biases"),
            "layer_norm_elementwise_affine": (True, "norms have weights"),
        },
        names={"intermediate_size": ("ffn_dim",)},
        shape=_read_opt,
    ),
    "biogpt": Kind(
        example="BioGPT",
        defaults={
            "vocab_size": 42_384,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 1024,
            "layer_norm_eps": 1e-12,
            "tie_word_embeddings": True,
            "scale_embedding": True,
        },
        read=(
            "layerdrop",
            "activation_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
        ),
        fixed={"hidden_act": ("gelu", "feed-forward layers have GELU")},
        eps="layer_norm_eps",
        shape=_read_biogpt,
    ),
}
"""model_type → how its configuration is read."""
