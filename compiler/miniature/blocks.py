"""Models, tokenizers, data sets and dialogs of a miniature."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...spec.record import replace
from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..program import Scheduled, ScheduledStage
from ..values import ModelShape, Parts

LAYERS, DIM, HEADS = 2, 64, 4
VOCAB = 1024
EXPERTS, ACTIVE = 8, 2
WINDOW = 8

DOCUMENTS = {
    "python_docs": 300,
    "python_code": 40,
    "python_functions": 600,
    "arithmetic": 600,
    "needles": 1500,
}
"""Sample → documents of a stand-in: enough for some hundred steps, tokenized in a second or two."""
THERE_ARE = {"python_docs": 2000, "python_code": 400, "python_functions": 3000}
"""Documents that every supported Python has; the generated samples have as many as requested.
Stand-ins with the same sample and kind share them, each using its own part."""
PROMPTS = 16
"""Prompts of each round."""
HOLDOUT = {"documents": Fraction(2, 100), "preferences": Fraction(10, 100)}
"""The smallest held-out share, so that measures have data."""
_BY_NAME = (
    ("python_code", ("code", "python", "stack", "github")),
    ("arithmetic", ("math", "arith", "reason", "gsm", "stem")),
    ("needles", ("needle", "long", "book", "synth")),
)
"""Sample → parts of the names of data sets for which it stands in."""


def model(full: r.Model, shape: ModelShape, lengths: Mapping[int, int]) -> r.Model:
    """A model of the same family and structure, two layers deep and 64 wide.

    This is the one place that scales shapes. It keeps the family, the ratio of query to key-value
    heads (up to 4), wide heads, whether embeddings are tied, and everything that is not a size:
    RoPE base, norms, factors. The groups `latent` and `experts` are kept as groups: their widths
    shrink with the model's, their counts to `EXPERTS` and `ACTIVE`. Attributes that are not named
    here stay as written.
    """
    changes: dict[str, Any] = {
        "size": None,
        "layers": LAYERS,
        "dim": DIM,
        "heads": HEADS,
        "vocab": None,
        "kv_heads": max(HEADS * shape.kv_heads // shape.heads, 1)
        if shape.kv_heads < shape.heads
        else None,
        "ffn": _width(shape.ffn, shape.dim, least=16),
        "rope_theta": shape.rope_theta,
        "tied": shape.tied,
        "norm_eps": shape.norm_eps,
        "weights": None,
        "hub": None,
        "revision": None,
        "context": None,
        "head": None,
    }
    wide = shape.head_dim * shape.heads > shape.dim and not shape.latent
    changes["head_dim"] = 2 * DIM // HEADS if wide else None
    stretched = full.rope_scaling
    if stretched is None and shape.rope_scaling == "yarn":
        stretched = r.RopeScaling(
            kind="yarn", factor=shape.rope_factor, original=shape.rope_original
        )
    if stretched:
        changes["rope_scaling"] = rope_scaling(stretched, lengths)
    if shape.window:
        # The same share of the longest sequence, but more than a token's neighbours.
        longest = max(lengths)
        changes["window"] = max(round(shape.window * lengths[longest] / longest), WINDOW)
    if FAMILIES[shape.family].sparse:
        changes["ffn"] = None
    if shape.parts:
        usual = vars(Parts(published=""))
        given = {name: getattr(shape.parts, name) for name in r.attributes(r.Parts)}
        kept = {name: value for name, value in given.items() if value != usual[name]}
        kept |= {name: min(kept[name], LAYERS) for name in kept if name.endswith("_skips")}
        if shape.parts.learned:
            kept["learned"] = nearest_length(shape.parts.learned, lengths)
        if not any(map(shape.parts.rotates, range(shape.layers))):
            changes["rope_theta"] = kept["rotary"] = kept["rotary_skips"] = None
        changes["parts"] = r.Parts(**kept, places={})
    for name in ("latent", "experts"):
        group = getattr(shape, name)
        if group is not None:
            changes[name] = _group(name, group, shape.dim)
    return replace(full, **changes)


def rope_scaling(scaling: r.RopeScaling, lengths: Mapping[int, int]) -> r.RopeScaling:
    """Position scaling, from the miniature of the original length."""
    if scaling.original is None:
        return scaling
    return replace(scaling, original=nearest_length(scaling.original, lengths))


def nearest_length(length: int, lengths: Mapping[int, int]) -> int:
    """The miniature of a length that may not occur in the recipe: that of the next smaller one."""
    below = [full for full in lengths if full <= length]
    return lengths[max(below) if below else min(lengths)]


def _width(width: int, dim: int, *, least: int = 8) -> int:
    """A width, in the same ratio to the miniature's as `width` to `dim`, as a multiple of 8."""
    return max(round(width * DIM / dim / 8) * 8, least)


def _group(name: str, group: Any, dim: int) -> Any:
    kind: Any = getattr(r, name.capitalize())
    values: dict[str, Any] = {
        attribute: getattr(group, of.field, None) for attribute, of in r.attributes(kind).items()
    }
    if name == "latent":
        small = {key: width and _width(width, dim) for key, width in values.items()}
    else:
        count = min(values["count"], EXPERTS)
        small = values | {
            "count": count,
            "active": min(values["active"], ACTIVE),
            "shared": values["shared"] and 1,
            "dense": values["dense"] and 1,
            "ffn": _width(values["ffn"], dim, least=16),
        }
        if values["groups"]:
            small |= {"groups": 2, "groups_used": 1 if values["groups_used"] == 1 else 2}
            if values["groups_used"] and values["groups_used"] < values["groups"]:
                small["groups_used"] = 1
    return kind(**small, places={})


def tokenizers(recipe: r.Recipe, datasets: Mapping[str, r.Dataset]) -> dict[str, r.Tokenizer]:
    """Every tokenizer, or else a single one, trained on the stand-ins of documents."""
    on = [name for name, each in datasets.items() if each.kind == "documents"]
    made = r.TokenizerTraining(on=on, vocab=VOCAB)
    full = recipe.tokenizers or {"words": r.Tokenizer(name="words", places=recipe.header.places)}
    return {
        name: replace(each, file=None, hub=None, bytes=False, train=made)
        for name, each in full.items()
    }


def datasets(recipe: r.Recipe, program: Scheduled) -> dict[str, r.Dataset]:
    """The stand-ins of all data sets, each of the same kind."""
    post = any(
        isinstance(stage, ScheduledStage) and stage.spec.data_kind != "documents"
        for stage in program.stages.values()
    )
    samples = {name: _sample(each, post) for name, each in recipe.datasets.items()}
    groups: dict[tuple[str, str], list[str]] = {}
    for name, each in recipe.datasets.items():
        groups.setdefault((samples[name], each.kind), []).append(name)
    rounds = max([b.count for b in recipe.stages.values() if isinstance(b, r.Rounds)], default=1)
    found = {}
    for name, each in recipe.datasets.items():
        sample = samples[name]
        group = groups[sample, each.kind]
        share = THERE_ARE.get(sample, 10**9) // len(group)
        documents = min(DOCUMENTS[sample], share)
        if each.kind == "prompts":
            documents = min(PROMPTS * max(rounds, 2), share)
        found[name] = r.Dataset(
            name=name,
            places=each.places,
            sample=sample,
            kind=each.kind,
            documents=documents,
            skip=documents * group.index(name),
            bad_lines=documents,
            long=each.long,
            fim=each.fim,
            holdout=max(each.holdout, HOLDOUT.get(each.kind, Fraction(0))),
            filters=[
                replace(one, keep=max(one.keep, Fraction(1, 2)))
                for one in each.filters
                if not one.file
            ],
        )
    return found


def _sample(dataset: r.Dataset, post: bool) -> str:
    if dataset.kind != "documents":
        return "python_functions"
    if dataset.sample:
        return dataset.sample
    for sample, parts in _BY_NAME:
        if any(part in dataset.name for part in parts) and not (post and sample == "python_code"):
            return sample
    return "python_functions" if post else "python_docs"


def dialogs(recipe: r.Recipe) -> dict[str, r.Dialog]:
    """The protocols; since a template is a file, a built-in one replaces it."""
    return {
        name: replace(
            each,
            system=None,
            template=None,
            protocol="chatml" if each.template is not None else each.protocol,
        )
        for name, each in recipe.dialogs.items()
    }


def verifiers(recipe: r.Recipe) -> dict[str, r.Verifier]:
    """A verifier that any answer passes in place of each: a model that has hardly learned gives no
    right answer, and the questions are other ones."""
    return {name: r.Verifier(name=name, kind="length", least=1) for name in recipe.verifiers}
