"""Resolves declared models to architectures."""

from collections.abc import Mapping
from typing import Any

from ...spec.findings.diagnostics import did_you_mean
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..families.architectures import complete, windowed_layers
from ..families.family import Family
from ..values import ModelShape, Parts
from .parts import chosen, still
from .scope import Scope

LLAMA_31: dict[str, Any] = {"factor": 8.0, "original": 8192, "low": 1.0, "high": 4.0}
"""Llama 3.1's position scaling (config.json of the published weights)."""
NUMBERS = (
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
)
"""Attributes of a model that an architecture has under the same name."""
BYTES = 258
"""Tokens of a tokenizer of bytes: these, and the beginning and the end of a text."""
_LATENT = ("keys", "plain", "rotary", "values")
_EXPERTS = ("count", "active", "ffn")


def architecture(model: r.Model, tokenizer: str | None, scope: Scope) -> ModelShape | None:
    """The complete architecture of a stage's starting model; None, with a report, if wrong."""
    if model.family not in FAMILIES:
        scope.report.add(
            "E414",
            f"there is no model family `{model.family}`",
            model.at("family"),
            help=_other_family(model.family) or did_you_mean(model.family, FAMILIES),
        )
        return None
    family = FAMILIES[model.family]
    shape: dict[str, Any] = {}
    if model.size:
        sizes = family.sizes
        if model.size not in sizes:
            scope.report.add(
                "E415",
                f"{model.family} has no published size {model.size}",
                model.at("size"),
                help=f"there is {', '.join(sizes)}; or give layers, dim, heads, …",
            )
            return None
        shape |= sizes[model.size]
    for name in (*NUMBERS, "mtp"):
        if getattr(model, name) is not None:
            shape[name] = getattr(model, name)
    reads = scope.recipe.tokenizers.get(tokenizer or "")
    if reads and reads.train:
        shape.setdefault("vocab", reads.train.vocab)
    least = reads.train.vocab if reads and reads.train else BYTES if reads and reads.bytes else 0
    if shape.get("vocab", least) < least:
        scope.report.add(
            "E416",
            f"the model has a vocabulary of {shape['vocab']} tokens, its tokenizer {least}",
            model.at("vocab"),
            help=f"write `vocab = {least}`",
        )
    needed = ("layers", "dim", "heads", *(() if family.sparse else ("ffn",)), "vocab")
    missing = [n for n in needed if n not in shape]
    if missing:
        example = next(iter(family.sizes))
        scope.report.add(
            "E417",
            f"the model `{model.name}` needs {', '.join(f'`{m}`' for m in missing)}",
            model.at(),
            help=_published_vocab(model.family, family.sizes)
            if missing == ["vocab"]
            else f'give a value for each, or name a published size: size = "{example}"',
        )
        return None
    return _shape(scope, model, shape)


def _published_vocab(name: str, sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """Advice on a vocabulary that is not given: those of the family's published models."""
    of: dict[int, list[str]] = {}
    for size, shape in sizes.items():
        of.setdefault(shape["vocab"], []).append(size)
    shown = [f"{vocab} ({', '.join(names)})" for vocab, names in of.items()]
    return (
        "write `vocab = N`, at least as many as the tokenizer has tokens; published models of "
        f"{name} have {'; '.join(shown)}"
    )


def scaled(scope: Scope, model: ModelShape, scaling: r.RopeScaling | None) -> ModelShape | None:
    """The architecture with scaled rotary positions; None, with a report, if wrong."""
    if scaling is None:
        return model
    allowed = FAMILIES[model.family].scalings
    if scaling.kind not in allowed:
        scope.error(
            "E419",
            f"{model.family} has no rope_scaling `{scaling.kind}`",
            scaling.at(),
            f"it has {', '.join(allowed)}",
        )
        return None
    if scaling.kind != "none" and (why := still(model)):
        scope.error(
            "E592", f"no positions can be scaled: {why}", scaling.at(), "remove `rope_scaling`"
        )
        return None
    apart = model.parts and not model.parts.window_scaled
    if scaling.kind != "none" and apart and windowed_layers(model) == model.layers:
        scope.error(
            "E419",
            f"`{scaling.kind}` would change nothing: layers with a window rotate without it, and "
            "all layers of this model have one",
            scaling.at(),
            "remove it or `window`, or write `window_skips = 4` or `window_scaled = true` in "
            "`parts`",
        )
        return None
    stretch = _STRETCHES[scaling.kind](scope, scaling)
    if stretch is None:
        return None
    found = replace(
        model, rope_scaling=scaling.kind, **{f"rope_{key}": n for key, n in stretch.items()}
    )
    return _published(found)


def another_base(model: ModelShape) -> ModelShape:
    """The model as one whose stages set a RoPE base, which not all in transformers have."""
    return _published(model, rope_theta=0.0)


def _published(model: ModelShape, **changed: Any) -> ModelShape:
    """The model with what transformers computes of its parts, which can depend on its positions."""
    parts = FAMILIES[model.family].parts
    if parts is None or model.parts is None:
        return model
    of = parts({**vars(model), **changed, "parts": vars(model.parts)})
    return replace(model, parts=Parts(**of))


def _unscaled(scope: Scope, scaling: r.RopeScaling) -> dict[str, Any]:
    return LLAMA_31 | {"factor": 1.0, "original": 0}


def _llama(scope: Scope, scaling: r.RopeScaling) -> dict[str, Any] | None:
    found = LLAMA_31 | _given(scaling, r.RopeScaling)
    if found["low"] < found["high"]:
        return found
    low, high = f"{found['low']:g}", f"{found['high']:g}"
    scope.error(
        "E541",
        f"`low` {low} is not below `high` {high}",
        scaling.at("low" if scaling.low is not None else "high"),
        "frequencies with fewer than `low` turns over the original length are scaled by the "
        "whole factor, those with more than `high` are not; in config.json they are "
        "low_freq_factor and high_freq_factor",
    )
    return None


def _yarn(scope: Scope, scaling: r.RopeScaling) -> dict[str, Any] | None:
    for name in ("factor", "original"):
        if getattr(scaling, name) is None:
            scope.error(
                "E417",
                f"yarn needs `{name}`",
                scaling.at(),
                "write `yarn { factor = 8, original = 8Ki }`: how many times longer than the "
                "original length",
            )
            return None
    for name in ("low", "high"):
        if getattr(scaling, name) is not None:
            scope.error(
                "E419",
                f"yarn has no `{name}`",
                scaling.at(name),
                "remove it: `low` and `high` belong to `llama`; YaRN's are fixed at 1 and 32 turns",
            )
            return None
    return LLAMA_31 | _given(scaling, r.RopeScaling)


_STRETCHES = {"none": _unscaled, "llama": _llama, "yarn": _yarn}


def _shape(scope: Scope, model: r.Model, shape: dict[str, Any]) -> ModelShape | None:
    family = FAMILIES[model.family]
    latent = _latent(scope, model, family, shape.get("latent", {}))
    experts = _experts(scope, model, family, shape.get("experts", {}))
    parts = chosen(scope, model, family, shape | {"experts": experts})
    if latent is None or experts is None or parts is None:
        return None
    heads = shape["heads"]
    for name, known, why in (
        ("window", family.windowed is not None, "all layers see the whole document"),
        ("ffn", not family.sparse, "every layer has experts, whose width is `experts.ffn`"),
    ):
        if getattr(model, name) is not None and not known:
            scope.report.add(
                "E419",
                f"{model.family} has no `{name}`: {why}",
                model.at(name),
                help="leave it out",
            )
            return None
    if latent and (model.head_dim or shape.get("kv_heads", heads) != heads):
        scope.report.add(
            "E419",
            f"the heads of {model.family} come from latents",
            model.at("head_dim" if model.head_dim else "kv_heads"),
            help="remove it, and set the widths in `latent`",
        )
        return None
    if not latent and "head_dim" not in shape and shape["dim"] % heads:
        scope.report.add(
            "E418",
            f"`dim` {shape['dim']} is not a multiple of `heads` {heads}",
            model.at("heads"),
            help=f"{_dividing(shape['dim'], heads)}, or give the width of a head, `head_dim`",
        )
        return None
    groups = {"latent": latent, "experts": experts, "parts": parts}
    found = complete(model.family, model.size, shape | groups)
    if found.mtp and not family.further(found):
        return _no_further(scope, model)
    rotary = _rotary(found)
    if (rotary % 2 or not rotary) and not still(found):
        scope.report.add(
            "E418",
            f"a head's {rotary} rotary elements cannot be paired",
            model.at("latent" if latent else "head_dim" if model.head_dim else "heads"),
            help="rotary embeddings need an even head width"
            + (", and `rotary` of `parts` an even number of it" if found.parts else ""),
        )
        return None
    if heads % found.kv_heads:
        scope.report.add(
            "E418",
            f"`heads` {heads} is not a multiple of `kv_heads` {found.kv_heads}",
            model.at("kv_heads"),
            help=_dividing(heads, found.kv_heads, "kv_heads"),
        )
        return None
    return scaled(scope, found, model.rope_scaling)


def _rotary(model: ModelShape) -> int:
    """The elements of a head that rotate."""
    if model.parts:
        return int(model.head_dim * model.parts.rotary)
    return model.latent.rotary if model.latent else model.head_dim


def _no_further(scope: Scope, model: r.Model) -> None:
    """Reports modules that predict further tokens in a model that has none."""
    scope.report.add(
        "E419",
        f"this {model.family} predicts the next token alone: no published files have a place for "
        "more",
        model.at("mtp"),
        help="remove `mtp`, write `family = deepseek_v3`, or give a `decoder` the `experts` and "
        "`parts` of GLM-4.5 (model_type glm4_moe)",
    )


def _dividing(whole: int, part: int, name: str = "heads") -> str:
    """What to write instead of a number that does not divide: the nearest one that does."""
    nearest = min(
        (n for n in range(1, min(whole, 2 * part) + 1) if whole % n == 0),
        key=lambda n: (abs(n - part), n),
    )
    return f"write `{name} = {nearest}`"


def _latent(
    scope: Scope, model: r.Model, family: Family, published: dict[str, Any]
) -> dict[str, Any] | None:
    """The latents of a model, {} if it has none; None, with a report, if wrong."""
    if not family.latent:
        if model.latent:
            scope.report.add(
                "E419",
                f"attention of {model.family} has no latents",
                model.at("latent"),
                help="remove `latent`",
            )
            return None
        return {}
    found = published | _given(model.latent, r.Latent)
    if missing := [name for name in _LATENT if name not in found]:
        return _lacks(scope, model, "latent", missing)
    return found


def _experts(
    scope: Scope, model: r.Model, family: Family, published: dict[str, Any]
) -> dict[str, Any] | None:
    """The experts of a model, {} if it has none; None, with a report, if wrong."""
    if not family.experts:
        if model.experts:
            other = next(n for n, f in FAMILIES.items() if f.experts and not f.latent)
            scope.report.add(
                "E419",
                f"{model.family} has no experts",
                model.at("experts"),
                help=f"write `family = {other}`, or remove `experts`",
            )
            return None
        return {}
    if not (published or model.experts or family.latent or family.sparse):
        return {}
    found = published | _given(model.experts, r.Experts)
    if missing := [name for name in _EXPERTS if name not in found]:
        return _lacks(scope, model, "experts", missing)
    usual = family.usual_experts(found.get("score"))
    problem = _contradiction(model.family, family, usual | found)
    if problem:
        attribute, message, help = problem
        place = (model.experts and model.experts.at(attribute)) or model.at("experts")
        scope.report.add("E419", message, place, help=help)
        return None
    return found


def _contradiction(name: str, family: Family, found: dict[str, Any]) -> tuple[str, str, str] | None:
    """Attribute, message and help for a contradiction in the experts of a model."""
    if found["active"] > found["count"]:
        return "active", f"{found['active']} of {found['count']} experts cannot be active", ""
    if found["groups"] is not None or found["groups_used"] is not None:
        groups, used = found["groups"], found["groups_used"]
        if not family.latent:
            return "groups", f"{name} chooses from all experts", "remove the groups"
        if groups is None or used is None:
            return "groups", "`groups` and `groups_used` belong together", ""
        if found["count"] % groups or found["count"] // groups < 2:
            return (
                "groups",
                f"{found['count']} experts cannot be divided into {groups} groups of two or more",
                "",
            )
        if used > groups or found["active"] > used * (found["count"] // groups):
            return (
                "groups_used",
                f"{found['active']} experts cannot be chosen from {used} of {groups} groups",
                "",
            )
    if family.sparse and found["dense"]:
        return "dense", f"every layer of {name} has experts", "remove `dense`"
    if found["shared_gate"] and not (family.parts and found["shared"]):
        message = f"{name} has no gate of shared experts" if family.parts is None else ""
        message = message or "there are no shared experts whose output could be gated"
        return "shared_gate", message, "write `shared = 1`, too" if family.parts else "leave it out"
    if not family.routed:
        usual = family.usual_experts()
        for attribute in ("shared", "scale", "score", "normalized"):
            if found[attribute] != usual[attribute]:
                other = "" if attribute in ("shared", "scale") else "other "
                return attribute, f"experts of {name} have no {other}`{attribute}`", "leave it out"
    elif family.latent and found["score"] != family.score:
        message = f"transformers scores the experts of {name} by {family.score} alone"
        return "score", message, "leave it out"
    elif not family.normalized and found["normalized"]:
        message = f"transformers lets the scores of {name}'s experts add up to anything"
        return "normalized", message, "leave it out"
    elif family.latent and not found["shared"]:
        return "shared", f"{name} has at least one shared expert", "write `shared = 1`"
    return None


def _given(group: r.Declaration | None, model: type[r.Declaration]) -> dict[str, Any]:
    if group is None:
        return {}
    values = {name: getattr(group, name) for name in r.attributes(model)}
    return {name: value for name, value in values.items() if value is not None}


def _lacks(scope: Scope, model: r.Model, group: str, missing: list[str]) -> None:
    scope.report.add(
        "E417",
        f"`{group}` of the model `{model.name}` needs {', '.join(f'`{name}`' for name in missing)}",
        model.at(group),
        help="give a value for each, or name a published size of the model",
    )


def _other_family(name: str) -> str:
    """What to say about a family by its name in transformers; "" if unknown."""
    from ..files.published_keys import KINDS  # only needed after errors
    from ..files.unread_kinds import UNREAD

    if name in KINDS:
        return f"write `family = {KINDS[name]}`, which computes the same, with this model's shape"
    reason = UNREAD.get(name)
    return f"no family in this version supports it: {reason}" if reason else ""
