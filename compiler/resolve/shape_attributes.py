"""The attributes with which a spec writes a decoder's shape."""

from fractions import Fraction
from typing import Any

from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..values import ModelShape, Parts
from .parts import still
from .shape import LLAMA_31, NUMBERS


def attributes_of(model: ModelShape) -> dict[str, Any]:
    """The attributes of a model of this shape that is of no published size: names → values.

    Groups are dicts; `rope_scaling` is left out if positions are not scaled.
    """
    scaling = {} if model.rope_scaling == "none" else {"rope_scaling": scaling_of(model)}
    return _shape(model) | scaling


def scaling_of(model: ModelShape) -> str | dict[str, Any]:
    """`rope_scaling` of a model whose positions are scaled."""
    if model.rope_scaling == "llama":
        return llama_scaling(
            model.rope_factor, model.rope_original, model.rope_low, model.rope_high
        )
    return {"kind": "yarn", "factor": model.rope_factor, "original": model.rope_original}


def llama_scaling(
    factor: Fraction | float | None = None,
    original: int | None = None,
    low: Fraction | float | None = None,
    high: Fraction | float | None = None,
) -> str | dict[str, Any]:
    """`rope_scaling` of a model that stretches positions as Llama 3.1 does: `llama`, with the
    numbers that differ from Llama 3.1's. None means the same number."""
    given = {"factor": factor, "original": original, "low": low, "high": high}
    changed = {
        name: value if name == "original" else float(value)
        for name, value in given.items()
        if value is not None and value != LLAMA_31[name]
    }
    return {"kind": "llama", **changed} if changed else "llama"


def _shape(model: ModelShape) -> dict[str, Any]:
    family = FAMILIES[model.family]
    names = list(NUMBERS)
    if family.latent:
        names = [name for name in names if name not in ("kv_heads", "head_dim")]
    elif model.head_dim * model.heads == model.dim:
        names.remove("head_dim")
    if family.sparse:
        names.remove("ffn")
    if family.windowed is None:
        names.remove("window")
    if still(model):
        names.remove("rope_theta")
    shape = {name: getattr(model, name) for name in names}
    for name, kind in (("latent", r.Latent), ("experts", r.Experts)):
        group = getattr(model, name)
        if group:
            values = {of: getattr(group, of) for of in r.attributes(kind)}
            known = _usual(model) if name == "experts" else {}
            shape[name] = {
                of: value
                for of, value in values.items()
                if value is not None and (of not in known or known[of] != value)
            }
    if model.parts:
        usual = Parts(published="")
        shape["parts"] = {
            of: getattr(model.parts, of)
            for of in r.attributes(r.Parts)
            if getattr(model.parts, of) != getattr(usual, of)
        }
        if not shape["parts"]:
            del shape["parts"]
    return shape


def _usual(model: ModelShape) -> dict[str, Any]:
    """What experts have that a spec does not say; how far a bias moves follows from the score."""
    family, experts = FAMILIES[model.family], model.experts
    by_score = family.usual_experts(experts.score if experts else None)
    return family.usual_experts() | {"balance": by_score["balance"]}
