"""The parts of a decoder that a spec gives, and which of them exclude each other."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..families.family import Family
from ..values import ModelShape
from .scope import Scope

_OF_EXPERTS: Mapping[str, tuple[Any, ...]] = {
    "activation": ("silu",),
    "gated": (True,),
    "biases": ("none", "qkv", "attention"),
}
"""Parts that feed-forward layers have, too → their values in models with experts."""
_LINEAR = ("key_heads", "key_dim", "value_dim", "convolution", "skips")
"""Parts of linear attention besides `linear_heads`, without their prefix."""
_ROTARY = ("rotary", "rotary_skips", "window_theta", "window_scaled", "qk_norm_late")


def chosen(
    scope: Scope, model: r.Model, family: Family, shape: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The parts of a model that a spec or its size gives; None, with a report, if wrong.

    Args:
        shape: that of the size, with what the spec gives besides parts.
    """
    given = {
        name: value
        for name in (r.attributes(r.Parts) if model.parts else ())
        if (value := getattr(model.parts, name)) is not None
    }
    if family.parts is None:
        if model.parts:
            other = next(name for name, of in FAMILIES.items() if of.parts)
            scope.report.add(
                "E419",
                f"the blocks of {model.family} are always the same",
                model.at("parts"),
                help=f"write `family = {other}`, or remove `parts`",
            )
            return None
        return {}
    found = shape.get("parts", {}) | given
    found |= (
        {"linear_skips": 4} if found.get("linear_heads") and "linear_skips" not in found else {}
    )
    wrong = (
        *_excluded(found, shape),
        *_linear(given, found, shape),
        *_positions(model, given, found),
    )
    for name, message, help in wrong:
        inside = model.parts.at(name) if model.parts and name in given else None
        place = inside or (model.at(name) if name == "rope_theta" else None) or model.at("parts")
        scope.report.add("E592", message, place, help=help)
        return None
    return found


def _excluded(found: Mapping[str, Any], shape: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Attribute, message and help of parts that do not go together."""
    if found.get("window_skips") and not shape.get("window"):
        yield (
            "window_skips",
            "layers cannot skip a window that the model does not have",
            "write `window = 4Ki` in the model, or remove `window_skips`",
        )
    for name in ("window_first", "window_scaled"):
        if found.get(name) and not shape.get("window"):
            yield (
                name,
                f"`{name}` is about layers with a window, and the model has none",
                f"write `window = 4Ki` in the model, or remove `{name}`",
            )
    for name, usual in _OF_EXPERTS.items() if shape.get("experts") else ():
        if found.get(name, usual[0]) not in usual:
            yield (
                name,
                "experts are SwiGLU without biases (arXiv:2002.05202)",
                f"remove `{name}`, or `experts` of the model",
            )
    if found.get("window_first") and not found.get("window_skips"):
        yield (
            "window_first",
            "no layer sees the whole document, so none is the first that does",
            "write `window_skips = 4`, or remove `window_first`",
        )
    if found.get("qk_norm_late") and found.get("qk_norm", "none") == "none":
        yield (
            "qk_norm_late",
            "queries and keys have no norm that could come after the rotation",
            "write `qk_norm = head`, or remove `qk_norm_late`",
        )
    if found.get("window_theta") and not shape.get("window"):
        yield (
            "window_theta",
            "this is the RoPE base of layers with a window, and the model has none",
            "write `window = 4Ki` in the model, or `rope_theta` in place of `window_theta`",
        )
    if found.get("scaled") and found.get("embedding_scale", 1) != 1:
        yield (
            "embedding_scale",
            "`scaled` and `embedding_scale` are two factors on embeddings",
            "write their product as `embedding_scale`, and remove `scaled`",
        )
    if found.get("parallel", "none") != "none" and found.get("norms", "before") != "before":
        yield (
            "parallel",
            "attention and feed-forward layers side by side have their norms before them",
            "remove `norms`, or write `parallel = none`",
        )
    if found.get("rotary", 1) > 1:
        yield (
            "rotary",
            f"a share of {found['rotary']:g} of a head's elements cannot rotate",
            "write a share of at most 1, such as `rotary = 0.25`",
        )


def _linear(
    given: Mapping[str, Any], found: Mapping[str, Any], shape: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """The same of linear attention."""
    heads, skips = found.get("linear_heads", 0), found.get("linear_skips")
    if not heads:
        for name in (f"linear_{each}" for each in _LINEAR):
            if given.get(name):
                yield (
                    name,
                    f"`{name}` is about linear attention, and the model has none",
                    f"write `linear_heads = 32`, or remove `{name}`",
                )
        return
    keys = found.get("linear_key_heads") or heads
    if keys > heads or heads % keys:
        less = max(n for n in range(1, min(keys, heads) + 1) if heads % n == 0)
        yield (
            "linear_key_heads",
            f"{keys} heads of queries and keys do not divide the {heads} heads of values",
            f"write `linear_key_heads = {less}`",
        )
    if found.get("linear_convolution") == 1:
        yield (
            "linear_convolution",
            "a convolution that sees only its own token is none",
            "write `linear_convolution = 4`",
        )
    layers = shape.get("layers", skips)
    if not skips or skips < 2 or skips > layers:
        all_of = skips == 1
        yield (
            "linear_skips",
            "with `linear_skips = 1` all layers have attention, and none is linear"
            if all_of
            else f"no layer of this model would have attention: it has {layers} layers, and "
            + (f"`linear_skips = {skips}`" if skips else "none skips linear attention"),
            "remove the parts of linear attention"
            if all_of
            else f"write `linear_skips = {max(min(4, layers), 2)}`: of so many layers, the last "
            "has attention",
        )
    yield from _beside_linear(found, shape)


def _beside_linear(
    found: Mapping[str, Any], shape: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """What does not go with linear attention."""
    if shape.get("window"):
        yield (
            "linear_heads",
            "linear attention and a `window` exclude each other: no published model has both, and "
            "no test compares them",
            "remove `window` of the model, or `linear_heads`",
        )
    if shape.get("mtp"):
        yield (
            "linear_heads",
            "a module that predicts further tokens (`mtp`) goes with "
            "attention in every layer, not with linear attention",
            "remove `mtp` of the model, or `linear_heads`",
        )
    if found.get("alibi"):
        yield (
            "alibi",
            "linear attention has no scores that could fall with the distance (ALiBi)",
            "remove `alibi`, or `linear_heads`",
        )


def _positions(
    model: r.Model, given: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """The same of ways to say where a token stands, of which a model has one."""
    learned, alibi = found.get("learned"), found.get("alibi")
    if learned and alibi:
        yield (
            "alibi",
            "ALiBi and learned positions exclude each other",
            "remove `alibi` or `learned`",
        )
    if not learned and not alibi:
        return
    name, why = ("alibi", "ALiBi has none") if alibi else ("learned", "positions are learned")
    said = [each for each in _ROTARY if given.get(each)]
    said += ["rope_theta"] if model.rope_theta is not None else []
    for each in said:
        yield (
            each,
            f"`{each}` is about rotary positions, and this model has none: {why}",
            f"remove `{each}`, or `{name}` of `parts`",
        )


def still(model: ModelShape) -> str:
    """Why no positions of a model rotate; "" if some do."""
    if model.parts and model.parts.alibi:
        return "`alibi` has no rotary positions"
    if model.parts and model.parts.learned:
        return "this model's positions are learned"
    return ""
