"""Models that others publish weights of: their shapes, as config.json of the weights has them."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..compiler.architectures import FAMILIES, PUBLISHED, published
from ..compiler.published_config import Described, describe
from ..compiler.published_weights import differences
from ..compiler.values import Architecture
from ..spec import recipe as r

_LLAMA2: dict[str, Any] = {"vocab": 32_000, "rope_theta": 10_000.0, "norm_eps": 1e-5}
_MISTRAL: dict[str, Any] = {
    "layers": 32,
    "dim": 4096,
    "heads": 32,
    "kv_heads": 8,
    "ffn": 14336,
    "norm_eps": 1e-5,
}


class Published(NamedTuple):
    """A model: its family, its size or its shape, and the longest sequence that it was trained on.

    Attributes:
        shape: attributes of a model in a spec, `size` among them.
    """

    family: str
    shape: dict[str, Any]
    context: int


_SMOL: dict[str, Any] = {"vocab": 49_152, "norm_eps": 1e-5, "tied": True}
_STRETCHED = {"rope_scaling": "llama"}
_LLAMA_31 = {"factor": 8, "original": 8192, "low": 1, "high": 4}
_KNOWN: tuple[tuple[str, Published], ...] = (
    (r"llama-?3\.[13]-(8B|70B|405B)", Published("llama3", {"size": "", **_STRETCHED}, 131_072)),
    (
        r"llama-?3\.2-(1B|3B)",
        Published(
            "llama3", {"size": "", "rope_scaling": {"kind": "llama", "factor": 32.0}}, 131_072
        ),
    ),
    (r"llama-?3-(8B|70B)", Published("llama3", {"size": ""}, 8192)),
    (
        r"qwen3-(0\.6B|1\.7B|4B|8B|14B|32B|30B-A3B|235B-A22B)",
        Published("qwen3", {"size": ""}, 32_768),
    ),
    (
        r"llama-?2-7b",
        Published(
            "llama3", {"layers": 32, "dim": 4096, "heads": 32, "ffn": 11008, **_LLAMA2}, 4096
        ),
    ),
    (
        r"llama-?2-13b",
        Published(
            "llama3", {"layers": 40, "dim": 5120, "heads": 40, "ffn": 13824, **_LLAMA2}, 4096
        ),
    ),
    (
        r"llama-?2-70b",
        Published(
            "llama3",
            {"layers": 80, "dim": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672, **_LLAMA2},
            4096,
        ),
    ),
    (
        r"mistral-7b-(?:instruct-)?v0\.1",
        Published("llama3", {**_MISTRAL, "vocab": 32_000, "rope_theta": 10_000.0}, 4096),
    ),
    (
        r"mistral-7b-(?:instruct-)?v0\.2",
        Published("llama3", {**_MISTRAL, "vocab": 32_000, "rope_theta": 1e6}, 32_768),
    ),
    (
        r"mistral-7b-(?:instruct-)?v0\.3",
        Published("llama3", {**_MISTRAL, "vocab": 32_768, "rope_theta": 1e6}, 32_768),
    ),
    (
        r"tinyllama[-_]1\.1b",
        Published(
            "llama3",
            {"layers": 22, "dim": 2048, "heads": 32, "kv_heads": 4, "ffn": 5632, **_LLAMA2},
            2048,
        ),
    ),
    (
        r"smollm2-135m",
        Published(
            "llama3",
            {
                "layers": 30,
                "dim": 576,
                "heads": 9,
                "kv_heads": 3,
                "ffn": 1536,
                "rope_theta": 1e5,
                **_SMOL,
            },
            8192,
        ),
    ),
    (
        r"smollm2-360m",
        Published(
            "llama3",
            {
                "layers": 32,
                "dim": 960,
                "heads": 15,
                "kv_heads": 5,
                "ffn": 2560,
                "rope_theta": 1e5,
                **_SMOL,
            },
            8192,
        ),
    ),
    (
        r"smollm2-1\.7b",
        Published(
            "llama3",
            {"layers": 24, "dim": 2048, "heads": 32, "ffn": 8192, "rope_theta": 1.3e5, **_SMOL},
            8192,
        ),
    ),
)
"""What names have in them → the model. Groups are sizes."""


def llama_scaling(
    factor: Fraction | float | None = None,
    original: int | None = None,
    low: Fraction | float | None = None,
    high: Fraction | float | None = None,
) -> str | dict[str, Any]:
    """`rope_scaling` of a model that stretches positions as Llama 3.1 does: `llama`, with the
    numbers that are not Llama 3.1's. What is None is as there."""
    given = {"factor": factor, "original": original, "low": low, "high": high}
    changed = {
        name: value if name == "original" else float(value)
        for name, value in given.items()
        if value is not None and value != _LLAMA_31[name]
    }
    return {"kind": "llama", **changed} if changed else "llama"


def by_name(name: str) -> Published | None:
    """The model that weights of this name are of, as far as it is known."""
    for pattern, model in _KNOWN:
        found = re.search(pattern, name.rpartition("/")[2], re.IGNORECASE)
        if found and "size" in model.shape:
            sizes = {size.lower(): size for size in PUBLISHED[model.family]}
            return model._replace(shape=model.shape | {"size": sizes[found[1].lower()]})
        if found:
            return model
    return None


def by_config(folder: Path) -> Described | None:
    """What config.json in a folder describes; None where there is none that can be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return describe(config) if isinstance(config, dict) else None


def of_config(found: Described) -> Published | None:
    """The model that a configuration describes; None where no family computes it."""
    model = found.model
    if model is None or found.problems:
        return None
    stretched = {} if model.rope_scaling == "none" else {"rope_scaling": _scaling(model)}
    for size in PUBLISHED[found.family]:
        other = {each.attribute for each in differences(model, published(found.family, size))}
        if other <= {"rope_scaling"}:
            if other and not stretched:
                stretched = {"rope_scaling": "none"}
            shape = {"size": size} | (stretched if other else {})
            return Published(found.family, shape, found.longest)
    return Published(found.family, _shape(model) | stretched, found.longest)


def _shape(model: Architecture) -> dict[str, Any]:
    """Attributes of a model of no published size."""
    family = FAMILIES[model.family]
    names = [
        "layers",
        "dim",
        "heads",
        "kv_heads",
        "head_dim",
        "ffn",
        "vocab",
        "rope_theta",
        "tied",
        "norm_eps",
        "window",
    ]
    if family.latent:
        names = [name for name in names if name not in ("kv_heads", "head_dim")]
    elif model.head_dim * model.heads == model.dim and not family.qk_norm:
        names.remove("head_dim")
    if family.sparse:
        names.remove("ffn")
    if not family.windows:
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
    return shape


def _scaling(model: Architecture) -> str | dict[str, Any]:
    if model.rope_scaling == "llama":
        return llama_scaling(
            model.rope_factor, model.rope_original, model.rope_low, model.rope_high
        )
    return {"kind": "yarn", "factor": model.rope_factor, "original": model.rope_original}
