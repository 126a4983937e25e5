"""How `config.json` of decoders that are put together from parts is read."""

from typing import Any

from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_config import COMPUTED, OLMO


def _alone(values: Values, shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    return head_width(values, shape) | {"parts": given}


def _read_olmo3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window = values.number("sliding_window", 0, least=0)
    kinds, every = values.config.get("layer_types"), 4
    if isinstance(kinds, list):
        every = kinds.index("full_attention") + 1 if "full_attention" in kinds else 0
    return _alone(values, shape, **OLMO, window_skips=every) | {"window": window}


def _read_smollm3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    every, given = values.number("no_rope_layer_interval", 4), values.config.get("no_rope_layers")
    if isinstance(given, list):
        without = [at for at, rotates in enumerate(given) if not rotates]
        every = without[0] + 1 if without else 0
        if given != [int(every == 0 or (at + 1) % every != 0) for at in range(len(given))]:
            values.problem(
                "no_rope_layers",
                "says no_rope_layers that are not every n-th layer",
                "use weights in which every n-th layer has no rotary positions",
            )
    return _alone(values, shape, rotary_skips=every)


def _share(values: Values) -> float:
    rope = values.config.get("rope_parameters")
    inside = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    given = values.config if inside is None else {"partial_rotary_factor": inside}
    return values.real(given, "partial_rotary_factor", values.defaults["partial_rotary_factor"])


def _read_nemotron(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    has = {"norm": "layer", "activation": "relu2", "gated": False}
    return _alone(values, shape, **has, rotary=_share(values))


def _read_stablelm(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = {"norm": "layer", "rotary": _share(values)}
    biases = "qkv" if values.get("use_qkv_bias") else "none"
    return {"head_dim": shape["dim"] // shape["heads"], "parts": {**found, "biases": biases}}


def _read_starcoder2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window = values.number("sliding_window", 0, least=0)
    return _alone(values, shape, **COMPUTED["starcoder2"]) | {"window": window}


def _read_gemma(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    # transformers takes the approximation where a configuration says "gelu"
    # (`configuration_gemma.py`), as those of the first Gemmas do.
    for key in ("hidden_act", "hidden_activation"):
        if values.config.get(key) not in (None, "gelu", "gelu_pytorch_tanh"):
            values.problem(
                key,
                f"says {key} = {values.config[key]!r}: feed-forward layers have GELU",
                "use other weights, such as Gemma 7B",
            )
    return _alone(values, shape, **COMPUTED["gemma"])


def _read_gemma2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = head_width(values, shape)
    if values.get("query_pre_attn_scalar") != found["head_dim"]:
        values.problem(
            "query_pre_attn_scalar",
            f"says query_pre_attn_scalar = {values.get('query_pre_attn_scalar')}: the softmax is "
            "scaled by the width of a head",
            "use weights where it is the width of a head, such as those of Gemma 2 2B and 9B",
        )
    caps = {
        name: values.real(values.config, key, values.defaults[key]) if values.get(key) else 0.0
        for name, key in (
            ("attention_cap", "attn_logit_softcapping"),
            ("logit_cap", "final_logit_softcapping"),
        )
    }
    window = values.number("sliding_window", 0, least=0)
    of = {**COMPUTED["gemma2"], **caps}
    return found | {"window": window, "parts": of}


def _read_gpt2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = {**COMPUTED["gpt2"], "learned": values.number("max_position_embeddings")}
    return _whole_heads(shape, **of)


def _read_gpt_neox(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    key = "partial_rotary_factor" if "rope_parameters" in values.config else "rotary_pct"
    rope = values.config.get("rope_parameters")
    given = rope if isinstance(rope, dict) else values.config
    share = values.real(given, key, values.defaults["partial_rotary_factor"])
    parallel = "two" if values.get("use_parallel_residual") else "none"
    base = {"rope_theta": values.real(values.config, "rotary_emb_base", 10_000.0)}
    of = {**COMPUTED["gpt_neox"], "parallel": parallel, "rotary": share}
    return _whole_heads(shape, **of) | base


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
    return _whole_heads(shape, **of) | ({} if grouped else {"kv_heads": 1})


def _whole_heads(shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"head_dim": max(shape["dim"] // shape["heads"], 1), "parts": given}


def _defaults(**others: Any) -> dict[str, Any]:
    return {**LLAMA_DEFAULTS, **others}


KINDS = {
    "olmo2": Kind(
        near=("olmo",),
        example="OLMo 2",
        defaults=_defaults(vocab_size=50_304, intermediate_size=11_008, rms_norm_eps=1e-5),
        shape=lambda values, shape: _alone(values, shape, **OLMO),
    ),
    "olmo3": Kind(
        defaults=_defaults(
            vocab_size=50_304, intermediate_size=11_008, rms_norm_eps=1e-5, sliding_window=4096
        ),
        shape=_read_olmo3,
    ),
    "qwen2": Kind(
        near=("qwen", "qwen2_5_vl"),
        example="Qwen2.5",
        defaults=_defaults(
            vocab_size=151_936,
            intermediate_size=22_016,
            num_key_value_heads=32,
            max_position_embeddings=32_768,
        ),
        fixed={
            "use_sliding_window": (False, "all layers see the whole document"),
            "qkv_bias": (True, "queries, keys and values have biases"),
        },
        shape=lambda values, shape: _alone(values, shape, biases="qkv"),
    ),
    "smollm3": Kind(
        defaults=_defaults(
            vocab_size=128_256,
            hidden_size=2048,
            num_hidden_layers=36,
            num_attention_heads=16,
            num_key_value_heads=4,
            max_position_embeddings=32_768,
            tie_word_embeddings=True,
            no_rope_layer_interval=4,
        ),
        read=("no_rope_layers",),
        fixed={"use_sliding_window": (False, "all layers see the whole document")},
        shape=_read_smollm3,
    ),
    "nemotron": Kind(
        defaults=_defaults(
            vocab_size=256_000,
            hidden_size=6144,
            intermediate_size=24_576,
            num_attention_heads=48,
            max_position_embeddings=4096,
            norm_eps=1e-5,
            partial_rotary_factor=0.5,
        ),
        fixed={"hidden_act": ("relu2", "feed-forward layers have squared ReLU")},
        eps="norm_eps",
        shape=_read_nemotron,
    ),
    "stablelm": Kind(
        defaults=_defaults(
            vocab_size=50_304,
            hidden_size=2560,
            intermediate_size=6912,
            num_key_value_heads=32,
            max_position_embeddings=4096,
            layer_norm_eps=1e-5,
            partial_rotary_factor=0.25,
            use_qkv_bias=False,
        ),
        fixed={
            "qk_layernorm": (False, "queries and keys are not normed"),
            "use_parallel_residual": (False, "attention and feed-forward layer are not parallel"),
        },
        eps="layer_norm_eps",
        shape=_read_stablelm,
    ),
    "starcoder2": Kind(
        defaults=_defaults(
            vocab_size=49_152,
            hidden_size=3072,
            intermediate_size=12_288,
            num_hidden_layers=30,
            num_attention_heads=24,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            norm_epsilon=1e-5,
            tie_word_embeddings=True,
        ),
        fixed={
            "hidden_act": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "use_bias": (True, "all matrices of a layer have biases"),
            "mlp_type": ("default", "feed-forward layers have two matrices"),
            "norm_type": ("layer_norm", "norms are LayerNorms"),
        },
        eps="norm_epsilon",
        shape=_read_starcoder2,
    ),
    "gemma": Kind(
        example="Gemma 7B",
        defaults=_defaults(
            vocab_size=256_000,
            hidden_size=3072,
            intermediate_size=24_576,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=16,
            head_dim=256,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
        read=("hidden_act", "hidden_activation"),
        fixed={"use_bidirectional_attention": (None, "tokens see only those before them")},
        shape=_read_gemma,
    ),
    "gemma2": Kind(
        defaults=_defaults(
            vocab_size=256_000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            sliding_window=4096,
            query_pre_attn_scalar=256,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
        ),
        fixed={
            "hidden_activation": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "hidden_act": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "use_bidirectional_attention": (False, "tokens see only those before them"),
        },
        shape=_read_gemma2,
    ),
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
        shape=lambda values, shape: _whole_heads(shape, **COMPUTED["bloom"]),
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
