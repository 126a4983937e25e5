"""How `config.json` of decoders that are put together from parts is read."""

from typing import Any

from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_computed import COMPUTED, OLMO
from .decoder_reading import capped, scaled, share, whole_heads
from .further_mixed_kinds import FURTHER_KINDS
from .fused_kinds import FUSED
from .gpt_kinds import GPTS
from .linear_kinds import LINEAR_KINDS
from .llama3 import DENSE
from .llama_kinds import KIN
from .mixed_kinds import MIXED_KINDS
from .other_mixed_kinds import OTHER_KINDS


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


def _read_nemotron(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    attention, fed = bool(values.get("attention_bias")), bool(values.get("mlp_bias"))
    places = {(True, True): "all", (True, False): "attention", (False, True): "ffn"}
    has = {"norm": "layer", "activation": "relu2", "gated": False}
    has["biases"] = places.get((attention, fed), "none")
    return _alone(values, shape, **has, rotary=share(values))


def _read_stablelm(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return whole_heads(
        shape,
        norm="layer",
        rotary=share(values),
        biases="qkv" if values.get("use_qkv_bias") else "none",
        qk_norm="layers" if values.get("qk_layernorm") else "none",
        parallel="one" if values.get("use_parallel_residual") else "none",
    )


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
    return capped(values, shape, **COMPUTED["gemma2"])


def _read_gemma3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    kinds = values.config.get("layer_types")
    every = values.number("sliding_window_pattern", 6)
    if isinstance(kinds, list):
        every = kinds.index("full_attention") + 1 if "full_attention" in kinds else 0
    rope = values.config.get("rope_parameters")
    near = rope.get("sliding_attention") if isinstance(rope, dict) else None
    base = values.real(values.config, "rope_local_base_freq", 10_000.0)
    base = values.real(near, "rope_theta", base) if isinstance(near, dict) else base
    has = {name: COMPUTED["gemma3_text"][name] for name in ("norms", "qk_norm", "scaled")}
    return capped(
        values,
        shape,
        **has,
        activation="gelu_tanh",
        window_skips=every,
        window_theta=base,
    )


def _read_windows(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window = values.number("sliding_window", 0, least=0)
    return head_width(values, shape) | {"window": window, "parts": {}}


def _read_phi3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window = values.number("sliding_window", 0, least=0)
    return whole_heads(shape, rotary=share(values)) | {"window": window}


def _defaults(**others: Any) -> dict[str, Any]:
    return {**LLAMA_DEFAULTS, **others}


KINDS = {
    "olmo2": Kind(
        example="OLMo 2",
        defaults=_defaults(vocab_size=50_304, intermediate_size=11_008, rms_norm_eps=1e-5),
        shape=lambda values, shape: _alone(values, shape, **OLMO),
    ),
    "olmo3": Kind(
        defaults=_defaults(
            vocab_size=50_304, intermediate_size=11_008, rms_norm_eps=1e-5, sliding_window=4096
        ),
        apart=True,
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
        base=2e6,
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
            attention_bias=False,
            mlp_bias=False,
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
            qk_layernorm=False,
            use_parallel_residual=False,
        ),
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
    "gemma3_text": Kind(
        near=("gemma3", "gemma3n_text"),
        example="Gemma 3 1B",
        defaults=_defaults(
            vocab_size=262_208,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            max_position_embeddings=131_072,
            tie_word_embeddings=True,
            sliding_window=4096,
            query_pre_attn_scalar=256,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
        ),
        read=("sliding_window_pattern", "_sliding_window_pattern", "rope_local_base_freq"),
        fixed={
            "hidden_activation": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "hidden_act": ("gelu_pytorch_tanh", "feed-forward layers have GELU"),
            "use_bidirectional_attention": (False, "tokens see only those before them"),
        },
        base=1e6,
        apart=True,
        shape=_read_gemma3,
    ),
    "granite": Kind(
        near=("minicpm",),
        example="Granite 3.3",
        defaults=_defaults(),
        read=(
            "attention_multiplier",
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
        ),
        shape=scaled,
    ),
    "arcee": Kind(
        example="AFM 4.5B",
        defaults=_defaults(
            hidden_size=2560,
            intermediate_size=18_432,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        fixed={"hidden_act": ("relu2", "feed-forward layers have squared ReLU")},
        shape=lambda values, shape: _alone(values, shape, **COMPUTED["arcee"]),
    ),
    "mistral": Kind(
        defaults=_defaults(
            intermediate_size=14_336,
            num_key_value_heads=8,
            max_position_embeddings=131_072,
            sliding_window=4096,
        ),
        fixed=DENSE,
        shape=_read_windows,
    ),
    "phi3": Kind(
        near=("phimoe",),
        example="Phi-3 mini 4K or Phi-4",
        defaults=_defaults(
            vocab_size=32_064,
            hidden_size=3072,
            intermediate_size=8192,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            sliding_window=None,
            partial_rotary_factor=1.0,
        ),
        read=("original_max_position_embeddings",),
        shape=_read_phi3,
    ),
    "seed_oss": Kind(
        example="Seed-OSS 36B",
        defaults=_defaults(
            vocab_size=155_136,
            intermediate_size=27_648,
            num_hidden_layers=64,
            num_attention_heads=80,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=524_288,
        ),
        fixed={
            "attention_bias": (True, "queries, keys and values have biases"),
            "attention_out_bias": (False, "attention's output has no bias"),
        },
        shape=lambda values, shape: _alone(values, shape, biases="qkv"),
    ),
    **FUSED,
    **GPTS,
    **KIN,
    **MIXED_KINDS,
    **FURTHER_KINDS,
    **OTHER_KINDS,
    **LINEAR_KINDS,
}
"""model_type → how its configuration is read."""
