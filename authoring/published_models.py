"""Shapes of well-known published models, from their config.json."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ..compiler.families import FAMILIES
from ..compiler.families.architectures import published
from ..compiler.files.published_config import Described, describe
from ..compiler.files.published_weights import differences
from ..compiler.resolve.shape_attributes import attributes_of, scaling_of


class Published(NamedTuple):
    """A model: its family, its size or shape, and the longest sequence that it was trained on.

    Attributes:
        shape: attributes of a model in a spec, including `size`.
    """

    family: str
    shape: dict[str, Any]
    context: int


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
    for size in FAMILIES[found.family].sizes:
        other = {each.attribute for each in differences(model, published(found.family, size))}
        if other <= {"rope_scaling"}:
            scaling = "none" if model.rope_scaling == "none" else scaling_of(model)
            shape = {"size": size} | ({"rope_scaling": scaling} if other else {})
            return Published(found.family, shape, found.longest)
    return Published(found.family, attributes_of(model), found.longest)
