"""How `config.json` is read of GPT-2, and of decoders that took its names: queries, keys and values
are one matrix."""

from typing import Any

from .config_json import Kind, Values
from .decoder_computed import COMPUTED
from .decoder_reading import whole_heads


def _read_gpt2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = {**COMPUTED["gpt2"], "learned": values.number("max_position_embeddings")}
    return whole_heads(shape, **of)


def _read_gpt_neox(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    key = "partial_rotary_factor" if "rope_parameters" in values.config else "rotary_pct"
    rope = values.config.get("rope_parameters")
    given = rope if isinstance(rope, dict) else values.config
    share = values.real(given, key, values.defaults["partial_rotary_factor"])
    parallel = "two" if values.get("use_parallel_residual") else "none"
    base = {"rope_theta": values.real(values.config, "rotary_emb_base", 10_000.0)}
    of = {**COMPUTED["gpt_neox"], "parallel": parallel, "rotary": share}
    return whole_heads(shape, **of) | base


def _read_falcon(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    new = bool(values.get("new_decoder_architecture"))
    if not new and not values.get("parallel_attn"):
        values.problem(
            "parallel_attn",
            "says parallel_attn = False: attention and feed-forward layer are parallel",
            "use other weights, such as Falcon 7B, 40B or 180B",
        )
    two = new and values.get("num_ln_in_parallel_attn") != 1
    of = {
        **COMPUTED["falcon"],
        "parallel": "two" if two else "one",
        "biases": "all" if values.get("bias") else "none",
    }
    grouped = new or not values.get("multi_query")
    return whole_heads(shape, **of) | ({} if grouped else {"kv_heads": 1})


FUSED = {
    "gpt2": Kind(
        defaults={
            "vocab_size": 50_257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        read=("n_ctx",),
        fixed={
            "activation_function": ("gelu_new", "feed-forward layers have GELU"),
            "scale_attn_weights": (True, "scores are scaled by the width of a head"),
            "scale_attn_by_inverse_layer_idx": (False, "scores are scaled alike in all layers"),
        },
        eps="layer_norm_epsilon",
        names={
            "hidden_size": ("n_embd",),
            "num_hidden_layers": ("n_layer",),
            "num_attention_heads": ("n_head",),
            "intermediate_size": ("n_inner",),
            "max_position_embeddings": ("n_positions",),
        },
        shape=_read_gpt2,
    ),
    "gpt_neox": Kind(
        defaults={
            "vocab_size": 50_432,
            "hidden_size": 6144,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "intermediate_size": 24_576,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
            "partial_rotary_factor": 0.25,
        },
        read=("rotary_emb_base", "rotary_pct"),
        fixed={
            "hidden_act": ("gelu", "feed-forward layers have GELU"),
            "attention_bias": (True, "all matrices of a layer have biases"),
        },
        eps="layer_norm_eps",
        shape=_read_gpt_neox,
    ),
    "bloom": Kind(
        defaults={
            "vocab_size": 250_880,
            "hidden_size": 64,
            "n_layer": 2,
            "n_head": 8,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        read=("n_embed", "num_attention_heads", "num_hidden_layers", "seq_length"),
        fixed={
            "apply_residual_connection_post_layernorm": (False, "residuals are not normed"),
        },
        eps="layer_norm_epsilon",
        names={
            "hidden_size": ("n_embed", "hidden_size"),
            "num_hidden_layers": ("num_hidden_layers", "n_layer"),
            "num_attention_heads": ("num_attention_heads", "n_head"),
            "max_position_embeddings": ("seq_length",),
        },
        shape=lambda values, shape: whole_heads(shape, **COMPUTED["bloom"]),
    ),
    "falcon": Kind(
        defaults={
            "vocab_size": 65_024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "layer_norm_epsilon": 1e-5,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "new_decoder_architecture": False,
            "multi_query": True,
            "parallel_attn": True,
            "num_ln_in_parallel_attn": None,
            "bias": False,
        },
        read=("seq_length", "num_kv_heads", "ffn_hidden_size"),
        fixed={
            "activation": ("gelu", "feed-forward layers have GELU"),
            "alibi": (False, "positions are rotary"),
        },
        eps="layer_norm_epsilon",
        names={
            "num_key_value_heads": ("num_kv_heads",),
            "intermediate_size": ("ffn_hidden_size",),
        },
        shape=_read_falcon,
    ),
}
"""model_type → how its configuration is read."""
