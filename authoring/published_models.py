"""Models that others publish weights of: their shapes, as config.json of the weights has them."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ..compiler.architectures import FAMILIES, PUBLISHED, published

_LLAMA2: dict[str, Any] = {"vocab": 32_000, "rope_theta": 10_000.0, "norm_eps": 1e-5}
_MISTRAL: dict[str, Any] = {
    "layers": 32, "dim": 4096, "heads": 32, "kv_heads": 8, "ffn": 14336, "norm_eps": 1e-5,
}  # fmt: skip


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
    (r"llama-?3\.2-(1B|3B)", Published(
        "llama3", {"size": "", "rope_scaling": {"kind": "llama", "factor": 32.0}}, 131_072)),
    (r"llama-?3-(8B|70B)", Published("llama3", {"size": ""}, 8192)),
    (r"qwen3-(0\.6B|1\.7B|4B|8B|14B|32B|30B-A3B|235B-A22B)", Published(
        "qwen3", {"size": ""}, 32_768)),
    (r"llama-?2-7b", Published("llama3", {
        "layers": 32, "dim": 4096, "heads": 32, "ffn": 11008, **_LLAMA2}, 4096)),
    (r"llama-?2-13b", Published("llama3", {
        "layers": 40, "dim": 5120, "heads": 40, "ffn": 13824, **_LLAMA2}, 4096)),
    (r"llama-?2-70b", Published("llama3", {
        "layers": 80, "dim": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672, **_LLAMA2}, 4096)),
    (r"mistral-7b-(?:instruct-)?v0\.1", Published("llama3", {
        **_MISTRAL, "vocab": 32_000, "rope_theta": 10_000.0}, 4096)),
    (r"mistral-7b-(?:instruct-)?v0\.2", Published("llama3", {
        **_MISTRAL, "vocab": 32_000, "rope_theta": 1e6}, 32_768)),
    (r"mistral-7b-(?:instruct-)?v0\.3", Published("llama3", {
        **_MISTRAL, "vocab": 32_768, "rope_theta": 1e6}, 32_768)),
    (r"tinyllama[-_]1\.1b", Published("llama3", {
        "layers": 22, "dim": 2048, "heads": 32, "kv_heads": 4, "ffn": 5632, **_LLAMA2}, 2048)),
    (r"smollm2-135m", Published("llama3", {
        "layers": 30, "dim": 576, "heads": 9, "kv_heads": 3, "ffn": 1536, "rope_theta": 1e5,
        **_SMOL}, 8192)),
    (r"smollm2-360m", Published("llama3", {
        "layers": 32, "dim": 960, "heads": 15, "kv_heads": 5, "ffn": 2560, "rope_theta": 1e5,
        **_SMOL}, 8192)),
    (r"smollm2-1\.7b", Published("llama3", {
        "layers": 24, "dim": 2048, "heads": 32, "ffn": 8192, "rope_theta": 1.3e5, **_SMOL}, 8192)),
)  # fmt: skip
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


def kind_of(folder: Path) -> str | None:
    """The `model_type` of config.json in a folder; None where there is none."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(kind)


def by_config(folder: Path) -> Published | None:
    """The model that config.json in a folder describes; None where there is none, or another."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = {"mistral": "llama3", "llama": "llama3", "qwen3": "qwen3"}[config["model_type"]]
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        shape = {
            "layers": config["num_hidden_layers"], "dim": config["hidden_size"],
            "heads": config["num_attention_heads"],
            "kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
            "head_dim": config.get("head_dim")
            or config["hidden_size"] // config["num_attention_heads"],
            "ffn": config["intermediate_size"], "vocab": config["vocab_size"],
            "rope_theta": float(rope.get("rope_theta") or config.get("rope_theta") or 10_000),
            "tied": bool(config.get("tie_word_embeddings", False)),
            "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        }  # fmt: skip
        context = config.get("sliding_window") or config["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
    context = min(int(context), int(config["max_position_embeddings"]))
    if rope.get("rope_type", rope.get("type")) == "llama3" and kind == "llama3":
        shape |= _STRETCHED
    for size in PUBLISHED[kind]:
        known = vars(published(kind, size))
        if all(known[name] == value for name, value in shape.items() if name != "rope_scaling"):
            return Published(kind, {"size": size} | {
                name: value for name, value in shape.items() if name == "rope_scaling"
            }, context)  # fmt: skip
    if shape["head_dim"] * shape["heads"] == shape["dim"] and not FAMILIES[kind].qk_norm:
        del shape["head_dim"]
    return Published(kind, shape, context)
