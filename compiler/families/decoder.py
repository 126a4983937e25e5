"""Decoders whose blocks a spec puts together from parts, and published models that are values of
these parts."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..values import Architecture, ModelShape, Parts
from .config_json import LLAMA_DEFAULTS, Kind, Values, head_width, written
from .family import Family, Known, Shape
from .weights import Weight, swiglu

_USUAL: dict[str, Any] = Parts(published="").as_dict()
_OLMO = {"norms": "after", "qk_norm": "width"}
_OLMO2: dict[str, Any] = {
    "vocab": 100_352,
    "rope_theta": 500_000.0,
    "norm_eps": 1e-6,
    "parts": _OLMO,
}
_OLMO3: dict[str, Any] = _OLMO2 | {
    "vocab": 100_278,
    "window": 4096,
    "parts": {**_OLMO, "window_skips": 4},
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

# config.json of the published weights: allenai/OLMo-2-1124-7B, -13B and OLMo-2-0325-32B;
# allenai/Olmo-3-1025-7B and Olmo-3-1125-32B, whose vocabulary is cut to the tokenizer's (OLMo-core,
# `nn/hf/checkpoint.py`); Qwen/Qwen2.5-0.5B and -7B; HuggingFaceTB/SmolLM3-3B, with the RoPE base of
# its last stage (huggingface/smollm, `pretraining/smollm3/long_context_32k_to_64.yaml`; before that
# 50,000); bigcode/starcoder2-3b.
SIZES: dict[str, dict[str, Any]] = {
    "olmo2-7B": _OLMO2 | _OLMO_7B,
    "olmo2-13B": _OLMO2 | {"layers": 40, "dim": 5120, "heads": 40, "ffn": 13824},
    "olmo2-32B": _OLMO2 | _OLMO_32B,
    "olmo3-7B": _OLMO3 | _OLMO_7B,
    "olmo3-32B": _OLMO3 | _OLMO_32B,
    "qwen2.5-0.5B": _QWEN
    | {"layers": 24, "dim": 896, "heads": 14, "kv_heads": 2, "ffn": 4864, "tied": True},
    "qwen2.5-7B": _QWEN_LARGE
    | {"layers": 28, "dim": 3584, "heads": 28, "kv_heads": 4, "ffn": 18944},
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

_ANY = object()
_COMPUTED: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {"biases": "qkv"},
    "smollm3": {"rotary_skips": _ANY},
    "olmo2": _OLMO,
    "olmo3": {**_OLMO, "window_skips": _ANY},
    "nemotron": {"norm": "layer", "activation": "relu2", "gated": False, "rotary": _ANY},
    "stablelm": {"norm": "layer", "rotary": _ANY, "biases": _ANY},
    "starcoder2": {"norm": "layer", "activation": "gelu_tanh", "gated": False, "biases": "all"},
}
"""model_type → the parts that it has, besides Llama's."""
_FITS: Mapping[str, Callable[[Shape], bool]] = {
    "olmo3": lambda shape: shape["window"] > 0,
    "starcoder2": lambda shape: True,
    "stablelm": lambda shape: (
        shape["window"] == 0
        and shape["head_dim"] * shape["heads"] == shape["dim"]
        and shape["parts"]["biases"] != "all"
    ),
}
"""model_type → whether it has such shapes; the others have none with windows."""
CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "smollm3": "SmolLM3",
    "olmo2": "Olmo2",
    "olmo3": "Olmo3",
    "nemotron": "Nemotron",
    "stablelm": "StableLm",
    "starcoder2": "Starcoder2",
}
ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""Names of activations here → in transformers."""


def parts(shape: Shape) -> dict[str, Any]:
    """The parts of a shape, complete, and the model_type that computes them."""
    given = {**_USUAL, **(shape.get("parts") or {})}
    return given | {"published": _published(given, shape)}


def _published(given: Mapping[str, Any], shape: Shape) -> str:
    for kind, has in _COMPUTED.items():
        wanted = {**_USUAL, **has, "published": ""}
        apart = {name for name, value in wanted.items() if value is _ANY}
        same = all(given[name] == value for name, value in wanted.items() if name not in apart)
        fits = _FITS.get(kind, lambda shape: shape["window"] == 0)
        if same and fits({**shape, "parts": given}):
            return kind
    return ""


def attention(model: ModelShape) -> Iterator[Weight]:
    """Grouped-query attention with its biases and norms."""
    of = model.parts
    assert of
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    for rows in (queries, keys, keys):
        yield Weight((rows, model.dim), 0)
        if of.biases != "none":
            yield Weight((rows,), 0)
    yield Weight((model.dim, queries), 1)
    if of.biases == "all":
        yield Weight((model.dim,), None)
    if of.qk_norm != "none":
        head = of.qk_norm == "head"
        for width in (queries, keys):
            yield Weight((model.head_dim if head else width,), None)


def feed_forward(model: ModelShape) -> Iterator[Weight]:
    """A feed-forward layer of two or three matrices."""
    of = model.parts
    assert of
    matrices = list(swiglu(model.dim, model.ffn))
    yield from matrices if of.gated else (matrices[0], matrices[2])
    if of.biases == "all":
        for _ in range(2 if of.gated else 1):
            yield Weight((model.ffn,), 0)
        yield Weight((model.dim,), None)


def _norm(model: ModelShape) -> Iterator[Weight]:
    assert model.parts
    for _ in range(2 if model.parts.norm == "layer" else 1):
        yield Weight((model.dim,), None)


def norms(model: ModelShape) -> Iterator[Weight]:
    """The norms of a layer."""
    of = model.parts
    assert of
    for _ in range(4 if of.norms == "both" else 1 if of.parallel == "one" else 2):
        yield from _norm(model)


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
    return found | _OWN.get(of.published, _nothing)(model, of, rope)


def _nothing(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {}


def _olmo3(model: Architecture, of: Parts, rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "sliding_window": model.window,
        "layer_types": [
            "sliding_attention" if of.near(layer) else "full_attention"
            for layer in range(model.layers)
        ],
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
}


def _alone(values: Values, shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    return head_width(values, shape) | {"parts": given}


def _read_olmo3(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    window = values.number("sliding_window", 0, least=0)
    kinds, every = values.config.get("layer_types"), 4
    if isinstance(kinds, list):
        every = kinds.index("full_attention") + 1 if "full_attention" in kinds else 0
    return _alone(values, shape, **_OLMO, window_skips=every) | {"window": window}


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
    return _alone(values, shape, **_COMPUTED["starcoder2"]) | {"window": window}


def _defaults(**others: Any) -> dict[str, Any]:
    return {**LLAMA_DEFAULTS, **others}


KINDS = {
    "olmo2": Kind(
        near=("olmo",),
        example="OLMo 2",
        defaults=_defaults(vocab_size=50_304, intermediate_size=11_008, rms_norm_eps=1e-5),
        shape=lambda values, shape: _alone(values, shape, **_OLMO),
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
}
"""model_type → how its configuration is read."""

FAMILY = Family(
    sizes=SIZES,
    kinds=KINDS,
    config_json=config_json,
    # transformers' own YaRN, with its factor on queries and keys.
    yarn={},
    attention=attention,
    feed_forward=feed_forward,
    norms=norms,
    last_norm=_norm,
    parts=parts,
    known=(Known(name=r"olmo-?2-(?:\d+-)?(7B|13B|32B)", shape={}, context=4096),),
    windowed=lambda layer: True,
    scalings=("none", "yarn"),
)
