"""Declared models to architectures."""

from typing import Any

from ..spec import recipe as r
from ..spec.diagnostics import did_you_mean
from .architectures import PUBLISHED
from .scope import Scope
from .values import Architecture


def architecture(spec: r.Train, tokenizer: str | None, scope: Scope) -> Architecture | None:
    """The architecture of the model that a stage starts with, complete, or None after reporting."""
    assert spec.model
    if not scope.known(spec.model, "model", scope.recipe.models, spec.at("model")):
        return None
    model = scope.recipe.models[spec.model]
    if model.family not in PUBLISHED:
        scope.report.add(
            "E414", f"the engine has no model family `{model.family}`", model.at("family"),
            help=did_you_mean(model.family, PUBLISHED),
        )  # fmt: skip
        return None
    shape: dict[str, Any] = {"rope_theta": 10_000.0, "rope_scaling": "none", "tied": False,
                             "norm_eps": 1e-5}  # fmt: skip
    if model.size:
        sizes = PUBLISHED[model.family]
        if model.size not in sizes:
            scope.report.add(
                "E415", f"{model.family} has no published size {model.size}", model.at("size"),
                help=f"there is {', '.join(sizes)}; or give layers, dim, heads, …",
            )  # fmt: skip
            return None
        shape |= sizes[model.size]
    for name in ("layers", "dim", "heads", "kv_heads", "ffn", "vocab", "rope_theta",
                 "rope_scaling", "tied", "norm_eps"):  # fmt: skip
        if getattr(model, name) is not None:
            shape[name] = getattr(model, name)
    training = (
        scope.recipe.tokenizers[tokenizer].train if tokenizer in scope.recipe.tokenizers else None
    )
    if training:
        shape.setdefault("vocab", training.vocab)
        if shape["vocab"] < training.vocab:
            scope.report.add(
                "E416",
                f"the model has {shape['vocab']} tokens, its tokenizer {training.vocab}",
                model.at("vocab"), help=f"write `vocab = {training.vocab}`",
            )  # fmt: skip
    shape.setdefault("kv_heads", shape.get("heads"))
    missing = [n for n in ("layers", "dim", "heads", "ffn", "vocab") if n not in shape]
    if missing:
        scope.report.add(
            "E417", f"the model `{model.name}` needs {', '.join(f'`{m}`' for m in missing)}",
            model.at(), help="or name a published size: size = \"8B\"",
        )  # fmt: skip
        return None
    return _shape(scope, model, shape)


def _shape(scope: Scope, model: r.Model, shape: dict[str, Any]) -> Architecture | None:
    if shape["dim"] % shape["heads"] or (shape["dim"] // shape["heads"]) % 2:
        scope.report.add(
            "E418", f"`dim` {shape['dim']} is not an even multiple of `heads` {shape['heads']}",
            model.at("heads"), help="rotary embeddings need an even width a head",
        )  # fmt: skip
        return None
    if shape["heads"] % shape["kv_heads"]:
        scope.report.add(
            "E418",
            f"`heads` {shape['heads']} is not a multiple of `kv_heads` {shape['kv_heads']}",
            model.at("kv_heads"),
        )  # fmt: skip
        return None
    return Architecture(
        family=model.family, size=model.size, head_dim=shape["dim"] // shape["heads"],
        context=0, **shape,
    )  # fmt: skip
