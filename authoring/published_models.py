"""Shapes of well-known published models, from their config.json."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..compiler.families import FAMILIES
from ..compiler.families.architectures import published
from ..compiler.files.published_config import Described, describe
from ..compiler.files.published_weights import differences
from ..compiler.resolve.shape import NUMBERS
from ..compiler.values import ModelShape, Parts
from ..spec.schema import recipe as r


class Published(NamedTuple):
    """A model: its family, its size or shape, and the longest sequence that it was trained on.

    Attributes:
        shape: attributes of a model in a spec, including `size`.
    """

    family: str
    shape: dict[str, Any]
    context: int


_LLAMA_31 = {"factor": 8, "original": 8192, "low": 1, "high": 4}


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
        if value is not None and value != _LLAMA_31[name]
    }
    return {"kind": "llama", **changed} if changed else "llama"


def by_name(name: str) -> Published | None:
    """The model that weights of this name belong to, as far as it is known."""
    for family, of in FAMILIES.items():
        for model in of.known:
            found = re.search(model.name, name.rpartition("/")[2], re.IGNORECASE)
            if found:
                sizes = {size.lower(): size for size in of.sizes}
                size = {"size": sizes[found[1].lower()]} if found.re.groups else {}
                return Published(family, {**size, **model.shape}, model.context)
    return None


def by_config(folder: Path) -> Described | None:
    """The contents of a folder's config.json; None if there is none that can be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return describe(config) if isinstance(config, dict) else None


def of_config(found: Described) -> Published | None:
    """The model that a configuration describes; None if no family supports it."""
    model = found.model
    if model is None or found.problems:
        return None
    stretched = {} if model.rope_scaling == "none" else {"rope_scaling": _scaling(model)}
    for size in FAMILIES[found.family].sizes:
        other = {each.attribute for each in differences(model, published(found.family, size))}
        if other <= {"rope_scaling"}:
            if other and not stretched:
                stretched = {"rope_scaling": "none"}
            shape = {"size": size} | (stretched if other else {})
            return Published(found.family, shape, found.longest)
    return Published(found.family, _shape(model) | stretched, found.longest)


def _shape(model: ModelShape) -> dict[str, Any]:
    """Attributes of a model that is not of a published size."""
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
    shape = {name: getattr(model, name) for name in names}
    for name, kind in (("latent", r.Latent), ("experts", r.Experts)):
        group = getattr(model, name)
        if group:
            values = {of: getattr(group, of) for of in r.attributes(kind) if of != "balance"}
            usual = family.usual_experts() if name == "experts" else {}
            shape[name] = {
                of: value
                for of, value in values.items()
                if value is not None and (of not in usual or usual[of] != value)
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


def _scaling(model: ModelShape) -> str | dict[str, Any]:
    if model.rope_scaling == "llama":
        return llama_scaling(
            model.rope_factor, model.rope_original, model.rope_low, model.rope_high
        )
    return {"kind": "yarn", "factor": model.rope_factor, "original": model.rope_original}
