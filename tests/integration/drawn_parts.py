"""Random parts of decoders that go together."""

from random import Random
from typing import Any

from etude.spec.schema import recipe as r

SOMETIMES: tuple[tuple[str, Any], ...] = (
    ("attention_cap", 50),
    ("logit_cap", 30),
    ("embedding_norm", True),
    ("attention_scale", 0.2),
    ("residual_scale", 0.5),
    ("logit_scale", 0.25),
    ("qkv_clip", 8),
    ("output_bias", True),
)


def drawn(draw: Random, *, window: int, seq_len: int) -> dict[str, Any]:
    """Parts by their names in specs.

    Args:
        window: of the model; 0: none.
        seq_len: how many positions are learned, where they are.
    """
    of: dict[str, Any] = {
        "norm": draw.choice(["rms", "rms_plain", "layer", "layer_scale", "layer_plain"]),
        "norms": draw.choice(["before", "after", "both"]),
        "qk_norm": draw.choice(["none", "none", "head", "width", "plain", "layer", "layers"]),
        "activation": draw.choice(["silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu"]),
        "gated": draw.choice([True, False]),
        "biases": draw.choice(["none", "qkv", "attention", "ffn", "but_qkv", "all"]),
    }
    if of["norms"] == "before":
        of["parallel"] = draw.choice(["none", "one", "two"])
    of |= {name: value for name, value in SOMETIMES if draw.random() < 0.3}
    if (factor := draw.choice(["", "", "scaled", "embedding_scale"])) != "":
        of[factor] = True if factor == "scaled" else 12
    if window:
        of["window_skips"] = draw.choice([0, 2])
        of["window_first"] = of["window_skips"] > 0 and draw.random() < 0.5
    return of | _positions(draw, of, window, seq_len)


def _positions(draw: Random, of: dict[str, Any], window: int, seq_len: int) -> dict[str, Any]:
    place = draw.choice(["rotary", "rotary", "learned", "alibi"])
    if place != "rotary":
        return {place: seq_len if place == "learned" else True}
    found: dict[str, Any] = {
        "rotary": draw.choice([1, 0.5]),
        "rotary_skips": draw.choice([0, 2]),
        "qk_norm_late": of["qk_norm"] != "none" and draw.random() < 0.3,
    }
    if window:
        found["window_scaled"] = draw.random() < 0.3
        found["window_theta"] = draw.choice([0, 5000])
    return found


def names() -> set[str]:
    """All parts that a spec may give, except those of linear attention and its gate, which go with
    few others: `test_engine_linear.py` has them."""
    return {name for name in r.attributes(r.Parts) if name != "gate" and "linear" not in name}
