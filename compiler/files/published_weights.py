"""Compares published weights in a folder with the models of a spec, without loading the weights."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ...spec.findings.diagnostics import Report
from ...spec.record import Record, replace
from ...spec.schema import recipe as r
from ...spec.source import Span
from ..families.architectures import dense_layers
from ..program import Scheduled, WeightsStage
from ..values import Architecture, ModelShape
from .published_config import alike, describe
from .safetensors_files import Tensors

CONFIG = "config.json"
EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
EMBEDDINGS = (
    EMBEDDING,
    "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight",
    "transformer.wte.weight",
)
OUTPUTS = (OUTPUT, "embed_out.weight")
"""What kinds of model call the two."""
_KEYS = {
    "layers": "num_hidden_layers",
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tied": "tie_word_embeddings",
    "window": "sliding_window",
}
"""Attributes of a model → keys of config.json."""
_ROPE = ("scaling", "factor", "original", "low", "high")
_TRAINED_WITH = ("balance",)
"""Fields of experts that config.json lacks, because only training needs them."""


class Difference(Record):
    """A difference between a configuration and a model.

    Attributes:
        attribute: of the model.
        key: of config.json.
        theirs, ours: both values, as texts.
        write: what the spec of the model should say.
    """

    attribute: str
    key: str
    theirs: str
    ours: str
    write: str


def differences(theirs: ModelShape, ours: ModelShape) -> Iterator[Difference]:
    """Differences between a configuration and a model, except the length of sequences."""
    aside = set()
    if ours.latent:
        aside |= {"head_dim", "kv_heads"}
    if not dense_layers(theirs):
        aside.add("ffn")
    for name, key in _KEYS.items():
        one, other = getattr(theirs, name), getattr(ours, name)
        if name not in aside and not alike(one, other):
            yield Difference(
                attribute=name,
                key=key,
                theirs=_text(one),
                ours=_text(other),
                write=f"{name} = {_text(one)}",
            )
    one, other = _scaling(theirs), _scaling(ours)
    if one != other:
        yield Difference(
            attribute="rope_scaling",
            key="rope_scaling",
            theirs=one,
            ours=other,
            write=f"rope_scaling = {one}",
        )
    for group in ("latent", "experts", "parts"):
        yield from _group(group, getattr(theirs, group), getattr(ours, group))


_APART = {*_TRAINED_WITH, "published", "eps"}
"""Fields of groups that do not differ by themselves: `eps` of latents follows from `norm_eps`."""


def _group(group: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    if theirs is None or ours is None:
        if theirs is not ours:
            yield Difference(
                attribute=group,
                key=group,
                theirs="some" if theirs else "none",
                ours="some" if ours else "none",
                write=_braces(group, theirs) if theirs else f"no `{group}`",
            )
        return
    for name, one in vars(theirs).items():
        other = getattr(ours, name)
        if name not in _APART and not alike(one, other):
            yield Difference(
                attribute=group,
                key=f"{group}.{name}",
                theirs=_text(one),
                ours=_text(other),
                write=f"{group} = {{ {name} = {_text(one)}, … }}",
            )


def _braces(group: str, value: Any) -> str:
    known = r.attributes(getattr(r, group.capitalize()))
    given = {n: v for n, v in vars(value).items() if n in known and n not in _TRAINED_WITH}
    shown = ", ".join(f"{name} = {_text(each)}" for name, each in given.items() if each is not None)
    return f"{group} = {{ {shown} }}"


def _scaling(model: ModelShape) -> str:
    """The scaling of positions, in spec notation."""
    if model.rope_scaling == "none":
        return "none"
    shown = {name: _text(getattr(model, f"rope_{name}")) for name in _ROPE[1:]}
    if model.rope_scaling == "yarn":
        shown = {name: shown[name] for name in ("factor", "original")}
    elif tuple(shown.values()) == ("8", "8192", "1", "4"):
        return "llama"
    inside = ", ".join(f"{name} = {value}" for name, value in shown.items())
    return f"{model.rope_scaling} {{ {inside} }}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and value < 1e15 else repr(value)
    return str(value)


def further_tokens(config: Mapping[str, Any]) -> int:
    """The further tokens that modules in the files predict, as config.json says."""
    said = config.get("num_nextn_predict_layers", config.get("num_mtp_layers"))
    return said if isinstance(said, int) else 0


def lacks_modules(config: Mapping[str, Any], ours: ModelShape) -> tuple[str, str] | None:
    """What is wrong, and the way out, if a model predicts more further tokens than the files;
    modules that a model does not have are left out of it."""
    there = further_tokens(config)
    if ours.mtp <= there:
        return None
    return (
        f"has num_nextn_predict_layers {there}, but the model has `mtp = {ours.mtp}`",
        f"write `mtp = {there}`" if there else "remove `mtp`: the files have no such modules",
    )


def named(model: Architecture, kind: str) -> Architecture:
    """The model with its weights as models of a model_type name them, which may differ from what
    it is exported as."""
    if model.parts is None:
        return model
    return replace(model, parts=replace(model.parts, published=kind))


def check_published(program: Scheduled, root: Path, report: Report) -> None:
    """Compares the models whose weights are in a folder or in this machine's Hub cache with the
    files there. Reads only config.json and a few KiB of the weights. Missing files are not
    reported here.

    Args:
        root: the folder of the spec; folders of weights are relative to it.
    """
    for stage in program.stages.values():
        if isinstance(stage, WeightsStage):
            model = program.recipe.models[stage.name]
            with suppress(OSError, ValueError):
                folder = _folder(stage.source, root)
                if folder and (folder / CONFIG).is_file():
                    _check(stage, model, folder, report)


def _folder(source: dict[str, str], root: Path) -> Path | None:
    """The folder of weights, or of a repository's revision in the cache; None if there is none.

    The cache has folders `snapshots/COMMIT`, and files `refs/NAME` that hold commits.
    """
    if "folder" in source:
        return root / source["folder"]
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"),
        "huggingface",
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    repository = cache / f"models--{source['hub'].replace('/', '--')}"
    name = repository / "refs" / source["revision"]
    commit = name.read_text().strip() if name.is_file() else source["revision"]
    return repository / "snapshots" / commit


def _check(stage: WeightsStage, model: r.Model, folder: Path, report: Report) -> None:
    place = stage.source.get("folder") or stage.source["hub"]
    where = "weights" if "folder" in stage.source else "hub"
    name = f"{place.rstrip('/')}/{CONFIG}"
    config = _content(folder, name, model.at(where), report)
    if config is None:
        return
    ours = stage.model
    found = describe(config, ours.family)
    for problem in found.problems:
        report.add("E543", f"{name} {problem.message}", model.at(where), help=problem.help)
    if found.family and found.family != ours.family:
        report.add(
            "E542",
            f"{name} has the model_type {config['model_type']}, but `{model.name}` has the "
            f"family {ours.family}",
            model.at("family"),
            help=f"write `family = {found.family}`",
        )
        return
    if found.model is None:
        return
    if found.head != (model.head or "tokens"):
        of_head(name, found.head, model, report)
        return
    context = model.context or 0
    if context > found.longest:
        report.add(
            "E542",
            f"{name} has {found.bound} {found.longest}, but `{model.name}` has the `context` "
            f"{context}",
            model.at("context"),
            help=f"write `context = {found.longest}`",
        )
    own = found.model.tied and own_output(folder)
    for each in differences(found.model, ours):
        # A reward model has no output matrix that could be the embedding.
        if each.attribute != "tied" or not (own or model.judges):
            report.add(
                "E542",
                f"{name} has {each.key} {each.theirs}, but `{model.name}` has {each.ours}",
                model.at(each.attribute),
                help=f"write `{each.write}`",
            )
    if lacking := lacks_modules(config, ours):
        report.add("E542", f"{name} {lacking[0]}", model.at("mtp"), help=lacking[1])
    if own:
        _own_output(name, model, ours.tied, report)
    for key in found.unknown:
        _unknown(f"{name} has {key}", model.at(where), report)
    if found.code:
        _not_run(found.code, name, config["model_type"], model.at(where), report)


def _content(folder: Path, name: str, at: Span | None, report: Report) -> dict[str, Any] | None:
    """What config.json says; None after reporting that it says nothing."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except ValueError as problem:
        report.add(
            "E543",
            f"{name} is not a model's config.json: {problem}",
            at,
            help="download the file again",
        )
        return None
    return cast("dict[str, Any]", config)


def _not_run(code: str, config: str, kind: str, at: Span | None, report: Report) -> None:
    report.add(
        "N671",
        f"{config} says that the code {code} computes the model, which etude does not run",
        at,
        help=f"etude computes what transformers' own {kind} does: if the code differs from that, "
        "use other weights",
    )


def _unknown(what: str, at: Span | None, report: Report) -> None:
    report.add(
        "W676",
        f"{what}, which etude does not know",
        at,
        help="find out whether it changes what the model computes: if so, use other weights; "
        'if not, silence this with `allow W676 "…"`',
    )


def of_head(config: str, theirs: str, model: r.Model, report: Report) -> None:
    """Reports weights that end in something else than the model says.

    Args:
        config: the path of config.json.
    """
    what = {"score": "a reward model", "tokens": "a language model"}
    report.add(
        "E542",
        f"{config} describes {what[theirs]}, but `{model.name}` is {what[model.head or 'tokens']}",
        model.at("head") or model.at("weights" if model.weights else "hub"),
        help=f"write `head = {theirs}`",
    )


def _own_output(name: str, model: r.Model, tied: bool, report: Report) -> None:
    """Reports a configuration that ties matrices that are separate in the files."""
    if tied:
        report.add(
            "E542",
            f"{name} ties embedding and output, but the files have a separate output matrix, "
            f"{OUTPUT}",
            model.at("tied"),
            help="write `tied = false`: both are kept, as transformers does with these files",
        )
        return
    report.add(
        "W677",
        f"{name} ties embedding and output, but the files have a separate output matrix, {OUTPUT}",
        model.at("tied"),
        help="both are kept, as `tied = false` says and as transformers does with these files; "
        'set tie_word_embeddings to false in config.json, or silence this with `allow W677 "…"`',
    )


def own_output(folder: Path) -> bool:
    """Whether the files have an output matrix that differs from the embedding, judging by a sample
    of their bytes."""
    tensors = Tensors(folder)
    output, embedding = (
        next((found for name in names if (found := tensors.sample(name)) is not None), None)
        for names in (OUTPUTS, EMBEDDINGS)
    )
    return output is not None and embedding is not None and output != embedding
