"""What the readers of decoders' `config.json` have in common."""

from typing import Any

from .config_json import Values, head_width


def whole_heads(shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The parts `given`, and heads that together are as wide as the model."""
    return {"head_dim": max(shape["dim"] // shape["heads"], 1), "parts": given}


def share(values: Values) -> float:
    """The share of a head's elements that rotate, under the two places that it has had."""
    rope = values.config.get("rope_parameters")
    inside = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    given = values.config if inside is None else {"partial_rotary_factor": inside}
    return values.real(given, "partial_rotary_factor", values.defaults["partial_rotary_factor"])


def patterned(values: Values, every: int, *, first: bool = False) -> dict[str, Any]:
    """The window, and which layers have it.

    Args:
        every: of so many layers one has none, if the configuration does not list them.
        first: it is the first of them, not the last.
    """
    window = values.number("sliding_window", 0, least=0)
    kinds = values.config.get("layer_types")
    if isinstance(kinds, list):
        whole = [at for at, kind in enumerate(kinds) if kind == "full_attention"]
        first = bool(whole) and whole[0] == 0
        every = whole[0] + 1 if whole else 0
        if first:
            every = whole[1] if len(whole) > 1 else len(kinds)
        if len(whole) == len(kinds):
            window, every, first = 0, 0, False
    if not window:
        every, first = 0, False
    return {"window": window, "parts": {"window_skips": every, "window_first": first}}


def unrotated(values: Values, found: dict[str, Any]) -> dict[str, Any]:
    """The parts of layers of which those without a window rotate nothing.

    Args:
        found: the window, and which layers have it, of `patterned`.
    """
    if not found["window"]:
        values.problem(
            "layer_types",
            "says that no layer has a window, and layers without one do not rotate: then nothing "
            "tells positions apart",
            "use weights with layers that have a window",
        )
    elif found["parts"]["window_first"]:
        values.problem(
            "layer_types",
            "says that the first layer has no window, and layers without one do not rotate: here "
            "those are the last ones of so many",
            "use weights whose first layer has a window",
        )
    return {**found["parts"], "rotary_skips": found["parts"]["window_skips"]}


def capped(values: Values, shape: dict[str, Any], **given: Any) -> dict[str, Any]:
    """What Gemma 2 and its kin have: windows, capped scores and logits, a scale of scores."""
    found = head_width(values, shape)
    divisor = values.real(values.config, "query_pre_attn_scalar", values.defaults["head_dim"])
    caps = {
        name: values.real(values.config, key, values.defaults[key]) if values.get(key) else 0.0
        for name, key in (
            ("attention_cap", "attn_logit_softcapping"),
            ("logit_cap", "final_logit_softcapping"),
        )
    }
    window = values.number("sliding_window", 0, least=0)
    of = {**given, **caps, "attention_scale": scale(divisor**-0.5, found["head_dim"])}
    return found | {"window": window, "parts": of}


def scale(of: float, width: int) -> float:
    """The scale of scores; 0 where it is that by the width of a head."""
    return 0.0 if of == width**-0.5 else of


def scaled(values: Values, shape: dict[str, Any]) -> dict[str, Any]:
    """Granite's factors on embeddings, scores, what is added to the residual, and logits."""
    width = max(shape["dim"] // shape["heads"], 1)
    factors = {
        name: values.real(values.config, key, 1.0)
        for name, key in (
            ("attention_scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        )
    }
    factors["attention_scale"] = scale(factors["attention_scale"], width)
    factors["logit_scale"] = 1 / factors["logit_scale"]
    return whole_heads(shape, **factors)
