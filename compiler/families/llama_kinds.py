"""How `config.json` is read of Llama's kin: decoders that took its names."""

from typing import Any

from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width
from .decoder_computed import COMPUTED
from .decoder_reading import capped, patterned, scale, share, unrotated, whole_heads
from .llama3 import DENSE

_BIASED = ("attention_bias", "mlp_bias")
_PLACES = {
    (False, False): "none",
    (True, False): "attention",
    (False, True): "ffn",
    (True, True): "all",
}


def _biases(values: Values) -> str:
    """Where Llama and its kin have biases."""
    return _PLACES[bool(values.get("attention_bias")), bool(values.get("mlp_bias"))]


def _defaults(**others: Any) -> dict[str, Any]:
    return {**LLAMA_DEFAULTS, **others}


def _alone(values: Values, shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    return head_width(values, shape) | {"parts": {**given, "biases": _biases(values)}}


def _has(kind: str, *names: str) -> dict[str, Any]:
    """These parts of a kind, which all of its models have."""
    return {name: COMPUTED[kind][name] for name in names}


def _read_cohere(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return whole_heads(
        shape,
        **_has("cohere", "norm", "parallel"),
        biases=_biases(values),
        qk_norm="layers" if values.get("use_qk_norm") else "none",
        logit_scale=values.real(values.config, "logit_scale", 0.0625),
    )


def _read_cohere2(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = patterned(values, values.number("sliding_window_pattern", 4))
    of = whole_heads(
        shape,
        **_has("cohere2", "norm", "parallel"),
        **unrotated(values, found),
        biases=_biases(values),
        logit_scale=values.real(values.config, "logit_scale", 0.0625),
    )
    return of | {"window": found["window"]}


def _read_olmo(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    clip = values.real(values.config, "clip_qkv", 0.0) if values.get("clip_qkv") else 0.0
    of = whole_heads(shape, norm="layer_plain", biases=_biases(values), qkv_clip=clip)
    return of | {"norm_eps": 1e-5}


def _read_glm(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    of = {"biases": "qkv" if values.get("attention_bias") else "none", "rotary": share(values)}
    return head_width(values, shape) | {"parts": of}


def _read_glm4(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = _read_glm(values, shape)
    return found | {"parts": {**found["parts"], "norms": "both"}}


def _read_exaone4(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    given = values.get("sliding_window_pattern")
    # "LLLG": the last of so many layers sees the whole document.
    if isinstance(given, str):
        every = len(given)
    else:
        every = values.number("sliding_window_pattern", 0, least=0)
    found = patterned(values, every)
    # Without a width of windows, all layers rotate.
    parts = unrotated(values, found) if values.get("sliding_window") else found["parts"]
    of = {**_has("exaone4", "norms", "qk_norm"), **parts}
    return whole_heads(shape, **of) | {"window": found["window"]}


def _read_cwm(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return head_width(values, shape) | patterned(values, 4, first=True)


def _read_ministral(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return head_width(values, shape) | patterned(values, 0)


def _read_vaultgemma(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    has = ("activation", "scaled", "window_skips")
    return capped(values, shape, **_has("vaultgemma", *has))


def _read_hyperclovax(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    found = head_width(values, shape)
    multiplier = values.real(values.config, "attention_multiplier", 0.0)
    of = {
        "norms": "both" if values.get("use_post_norm") else "before",
        "biases": _biases(values),
        "attention_scale": scale(multiplier, found["head_dim"]),
        "embedding_scale": values.real(values.config, "embedding_multiplier", 1.0),
        "residual_scale": values.real(values.config, "residual_multiplier", 1.0),
        "logit_scale": values.real(values.config, "logits_scaling", 1.0),
    }
    return found | {"parts": of}


def _read_nanochat(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    has = ("norm", "qk_norm", "qk_norm_late", "activation", "gated", "embedding_norm")
    cap = values.get("final_logit_softcapping")
    return whole_heads(
        shape,
        **_has("nanochat", *has),
        biases=_biases(values),
        logit_cap=values.real(values.config, "final_logit_softcapping", 15.0) if cap else 0.0,
    )


def _read_apertus(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    return whole_heads(
        shape, **_has("apertus", "activation", "gated", "qk_norm"), biases=_biases(values)
    )


def _read_ernie(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    biases = "all" if values.get("use_bias") else "none"
    return head_width(values, shape) | {"parts": {"biases": biases}}


def _stretched(base: float, factor: float) -> dict[str, Any]:
    """What some say of positions where the configuration does not."""
    return {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": factor,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }


_COHERE = _defaults(
    vocab_size=256_000,
    hidden_size=8192,
    intermediate_size=22_528,
    num_hidden_layers=40,
    num_attention_heads=64,
    max_position_embeddings=8192,
    layer_norm_eps=1e-5,
    tie_word_embeddings=True,
    attention_bias=False,
    logit_scale=0.0625,
)
_GLM = _defaults(
    vocab_size=151_552,
    intermediate_size=13_696,
    num_hidden_layers=40,
    num_key_value_heads=2,
    head_dim=128,
    max_position_embeddings=131_072,
    rms_norm_eps=1.5625e-7,
    attention_bias=True,
    partial_rotary_factor=0.5,
)
KIN = {
    "llama": Kind(
        defaults=_defaults(attention_bias=False, mlp_bias=False),
        fixed=DENSE,
        shape=_alone,
    ),
    "exaone": Kind(
        example="EXAONE 3.5",
        defaults=_defaults(
            vocab_size=102_400,
            intermediate_size=14_336,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        read=("num_layers",),
        fixed={
            "activation_function": ("silu", "feed-forward layers are SwiGLU"),
            "layer_norm_epsilon": (1e-5, "that is the epsilon of its norms"),
        },
        names={"num_hidden_layers": ("num_layers", "num_hidden_layers")},
        base=500_000.0,
        shape=lambda values, shape: head_width(values, shape) | {"parts": {}},
    ),
    "internlm3": Kind(
        example="InternLM3 8B",
        defaults=_defaults(
            vocab_size=128_512,
            intermediate_size=10_240,
            num_hidden_layers=48,
            num_key_value_heads=2,
            head_dim=128,
            max_position_embeddings=32_768,
            rms_norm_eps=1e-5,
        ),
        shape=lambda values, shape: head_width(values, shape) | {"parts": {}},
    ),
    "iquestcoder": Kind(
        example="IQuest-Coder 40B",
        defaults=_defaults(
            vocab_size=76_800,
            hidden_size=5120,
            intermediate_size=27_648,
            num_hidden_layers=80,
            num_attention_heads=40,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=131_072,
            rms_norm_eps=1e-5,
        ),
        shape=lambda values, shape: head_width(values, shape) | {"parts": {}},
    ),
    "qwen3": Kind(
        defaults=_defaults(
            vocab_size=151_936,
            intermediate_size=22_016,
            num_key_value_heads=32,
            head_dim=128,
            max_position_embeddings=32_768,
            attention_bias=False,
        ),
        fixed={**DENSE, "use_sliding_window": (False, "all layers see the whole document")},
        shape=lambda values, shape: _alone(values, shape, qk_norm="head"),
    ),
    "cohere": Kind(
        example="Command R",
        defaults={**_COHERE, "use_qk_norm": False},
        eps="layer_norm_eps",
        base=500_000.0,
        shape=_read_cohere,
    ),
    "cohere2": Kind(
        example="Command R7B",
        defaults={**_COHERE, "sliding_window": 4096},
        read=(
            "sliding_window_pattern",
            "_sliding_window_pattern",
            "rotary_pct",
            "order_of_interleaved_layers",
        ),
        fixed={"position_embedding_type": ("rope_gptj", "positions are rotary")},
        eps="layer_norm_eps",
        shape=_read_cohere2,
    ),
    "olmo": Kind(
        example="OLMo 7B",
        defaults=_defaults(vocab_size=50_304, clip_qkv=None, attention_bias=False),
        shape=_read_olmo,
    ),
    "glm": Kind(near=("chatglm",), example="GLM-4 9B", defaults=_GLM, shape=_read_glm),
    "glm4": Kind(example="GLM-4 9B 0414", defaults=_GLM, shape=_read_glm4),
    "exaone4": Kind(
        example="EXAONE 4.0",
        defaults=_defaults(
            vocab_size=102_400,
            intermediate_size=16_384,
            num_key_value_heads=32,
            rms_norm_eps=1e-5,
            sliding_window=4096,
            sliding_window_pattern=4,
        ),
        shape=_read_exaone4,
    ),
    "cwm": Kind(
        example="CWM",
        defaults=_defaults(
            vocab_size=128_256,
            hidden_size=6144,
            intermediate_size=21_504,
            num_hidden_layers=64,
            num_attention_heads=48,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=131_072,
            rms_norm_eps=1e-5,
            sliding_window=8192,
            rope_parameters=_stretched(1_000_000.0, 16.0),
        ),
        base=1e6,
        shape=_read_cwm,
    ),
    "ministral": Kind(
        example="Ministral 8B",
        defaults=_defaults(
            intermediate_size=14_336,
            num_key_value_heads=8,
            max_position_embeddings=131_072,
            sliding_window=4096,
        ),
        shape=_read_ministral,
    ),
    "vaultgemma": Kind(
        example="VaultGemma 1B",
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
        fixed={"hidden_activation": ("gelu_pytorch_tanh", "feed-forward layers have GELU")},
        shape=_read_vaultgemma,
    ),
    "hyperclovax": Kind(
        example="HyperCLOVA X SEED",
        defaults=_defaults(use_post_norm=True, attention_bias=False, mlp_bias=False),
        read=(
            "attention_multiplier",
            "embedding_multiplier",
            "residual_multiplier",
            "logits_scaling",
        ),
        shape=_read_hyperclovax,
    ),
    "hunyuan_v1_dense": Kind(
        example="Hunyuan 7B",
        defaults=_defaults(vocab_size=290_943, rms_norm_eps=1e-5, attention_bias=False),
        read=("alpha",),
        shape=lambda values, shape: _alone(values, shape, qk_norm="head", qk_norm_late=True),
    ),
    "apertus": Kind(
        example="Apertus 8B",
        defaults=_defaults(
            vocab_size=131_072,
            intermediate_size=14_336,
            max_position_embeddings=65_536,
            rms_norm_eps=1e-5,
            attention_bias=False,
            rope_parameters=_stretched(12_000_000.0, 8.0),
        ),
        fixed={"hidden_act": ("xielu", "feed-forward layers have xIELU")},
        base=12_000_000.0,
        shape=_read_apertus,
    ),
    "nanochat": Kind(
        example="nanochat d32",
        defaults=_defaults(
            vocab_size=50_304,
            hidden_size=768,
            intermediate_size=8192,
            num_hidden_layers=12,
            num_attention_heads=6,
            final_logit_softcapping=15.0,
            attention_bias=False,
        ),
        fixed={"hidden_act": ("relu2", "feed-forward layers have squared ReLU")},
        shape=_read_nanochat,
    ),
    "jais2": Kind(
        example="Jais 2",
        defaults=_defaults(
            vocab_size=150_272,
            hidden_size=3328,
            intermediate_size=26_624,
            num_attention_heads=26,
            max_position_embeddings=8192,
            layer_norm_eps=1e-5,
        ),
        fixed={
            "hidden_act": ("relu2", "feed-forward layers have squared ReLU"),
            **dict.fromkeys(_BIASED, (True, "all matrices of a layer have biases")),
        },
        eps="layer_norm_eps",
        shape=lambda values, shape: head_width(values, shape) | {"parts": COMPUTED["jais2"]},
    ),
    "helium": Kind(
        example="Helium 1",
        defaults=_defaults(
            vocab_size=48_000,
            hidden_size=2560,
            intermediate_size=7040,
            num_hidden_layers=24,
            num_attention_heads=20,
            num_key_value_heads=20,
            head_dim=128,
            max_position_embeddings=4096,
            rms_norm_eps=1e-8,
        ),
        shape=lambda values, shape: head_width(values, shape) | {"parts": {}},
        base=100_000.0,
    ),
    "ernie4_5": Kind(
        example="ERNIE 4.5 0.3B",
        defaults=_defaults(
            vocab_size=103_424,
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=18,
            num_attention_heads=16,
            num_key_value_heads=2,
            head_dim=128,
            max_position_embeddings=131_072,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            use_bias=False,
        ),
        base=500_000.0,
        shape=_read_ernie,
    ),
}
"""model_type → how its configuration is read."""
