"""Fills in what a spec leaves to the folder of published weights: the shape, the tokenizer and the
chat template of `model base { weights = "FOLDER" }`.

This is the one step that reads files beside the spec, so a plan is a function of the spec and of
these files. It names them with their checksums (`files`).
"""

import os
from pathlib import Path
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..files.published_config import ENDLESS
from ..files.published_weights import CONFIG, differences, of_head
from ..files.urls import is_url, shown
from ..files.weights_folder import (
    GENERATION,
    SETTINGS,
    TOKENIZER,
    Unusable,
    WeightsFolder,
    read_folder,
    report_lacking,
)
from ..program import FromFolder
from ..values import ModelShape
from .shape import NUMBERS
from .shape_attributes import attributes_of

_GROUPS: dict[str, Any] = {"latent": r.Latent, "experts": r.Experts, "parts": r.Parts}
Filled = tuple[r.Recipe, dict[str, FromFolder]]


def from_folders(recipe: r.Recipe, root: Path | None, report: Report) -> Filled:
    """The recipe with what the folders of its models' weights say, and what that is.

    A folder is read only for a model that leaves something to it. Where a folder says something
    else than the spec, or nothing, this is reported.

    Args:
        root: the folder of the spec; None: there is none, and no file is read.
    """
    models, tokenizers = dict(recipe.models), dict(recipe.tokenizers)
    found: dict[str, FromFolder] = {}
    for name, model in recipe.models.items():
        if root is None or not (model.weights or model.hub) or not _leaves(model):
            continue
        if model.weights and model.hub:
            continue  # a pass reports it
        try:
            written = _local(model)
            family = model.family if "family" in model.places else ""
            place = _existing(model, root / written, written)
            folder = read_folder(place, written.rstrip("/"), family)
        except Unusable as problem:
            where = model.at("weights" if model.weights else "hub")
            report.add(problem.code, problem.message, where, help=problem.help)
            if problem.code == "E543" and model.weights:
                report_lacking(root / model.weights, model.weights, model, report)
            continue
        if not _agrees(model, folder, written, report):
            report_lacking(place, written, model, report)
            continue
        filled = _filled(model, folder)
        models[name] = replace(model, **filled)
        tokenizer = None
        # A judge reads texts in its own tokens and its own protocol, whatever the recipe has.
        judges = models[name].judges
        if folder.tokenizer and (judges or not recipe.tokenizers):
            tokenizer = _tokenizer(model, folder, tokenizers, found)
        dialog = None if recipe.dialogs and not judges else _dialog(folder, written)
        found[name] = FromFolder(
            folder=written.rstrip("/"),
            filled=(*filled, *(n for n in NUMBERS if _shapeless(model) and n not in model.places)),
            tokenizer=tokenizer,
            dialog=dialog,
            shown=_shown(folder, tokenizer, dialog),
            files={_inside(written, name): sha for name, sha in folder.files.items()},
        )
    return replace(recipe, models=models, tokenizers=tokenizers), found


def _leaves(model: r.Model) -> bool:
    """Whether a model leaves its shape, or the length that it knows, to its weights."""
    return model.context is None or _shapeless(model)


def _shapeless(model: r.Model) -> bool:
    family = FAMILIES.get(model.family)
    needed = ("layers", "dim", "heads", "vocab", *(() if family and family.sparse else ("ffn",)))
    return not model.size and any(getattr(model, name) is None for name in needed)


def _local(model: r.Model) -> str:
    """The path of the folder, as the spec writes it.

    Raises: Unusable: it is on the Hub or in a store, whose files are not read here.
    """
    if model.weights and not is_url(model.weights):
        return model.weights
    place = shown(model.weights or model.hub or "")
    lacks = "its shape" if _shapeless(model) else "`context`"
    where = "on the Hugging Face Hub" if model.hub else "in a store"
    folder = f"weights/{place.rstrip('/').rpartition('/')[2]}"
    way = f"`hf download {place} --local-dir {folder}`" if model.hub else f"copy them to {folder}"
    raise Unusable(
        "E417",
        f"the model `{model.name}` lacks {lacks}, and its weights are {where}, which is not asked "
        "when a spec is checked",
        f'{way} and write `weights = "{folder}"`, whose config.json has everything; or write '
        + ('the shape and `context`: `size = "8B", context = 8Ki`' if _shapeless(model) else lacks)
        + ("" if _shapeless(model) else " = …"),
    )


def _existing(model: r.Model, folder: Path, written: str) -> Path:
    """Raises: Unusable: there is no such folder."""
    if folder.is_dir():
        return folder
    lacks = "shape" if _shapeless(model) else "`context`"
    what = "is a file, not a folder" if os.path.lexists(folder) else "does not exist"
    raise Unusable(
        "E548",
        f"the {lacks} of the model `{model.name}` has to come from its weights, but the folder "
        f"`{written}` {what}",
        f"put the weights into {os.path.normpath(folder.absolute())}, such as with `hf download "
        f"OWNER/NAME --local-dir {written}`; to plan without them, write the shape and `context`",
    )


def _agrees(model: r.Model, folder: WeightsFolder, written: str, report: Report) -> bool:
    """Whether what the spec writes is what the folder says; reports it if not."""
    described = folder.described
    config = f"{written.rstrip('/')}/config.json"
    if "family" in model.places and model.family != described.family:
        report.add(
            "E542",
            f"{config} describes a {described.family}, but `{model.name}` has the family "
            f"{model.family}",
            model.at("family"),
            help=f"write `family = {described.family}`, or leave it out",
        )
        return False
    if model.head not in (None, described.head):
        of_head(config, described.head, model, report)
        return False
    if model.size:
        return True  # compared as a whole, once the size is known to exist
    assert described.model
    agrees = True
    if model.context is None and described.longest == ENDLESS:
        agrees = False
        report.add(
            "E417",
            f"the model `{model.name}` lacks `context`: {config} says no {described.bound}",
            model.at("weights"),
            help="write the length of the sequences that it was trained on: `context = 2Ki`",
        )
    for each in differences(described.model, _as_written(model, described.model)):
        agrees = False
        report.add(
            "E542",
            f"{config} has {each.key} {each.theirs}, but `{model.name}` has {each.ours}",
            model.at(each.attribute),
            help=f"write `{each.write}`, or leave it out",
        )
    return agrees


def _as_written(model: r.Model, theirs: ModelShape) -> ModelShape:
    """The architecture of the folder with the numbers that the spec writes. Scaled positions, and
    whether matrices are tied, are compared later, with the files of the weights."""
    apart = {"tied", "rope_scaling", *_GROUPS}
    numbers = {
        name: value
        for name in vars(theirs)
        if name in model.places
        and name not in apart
        and (value := getattr(model, name, None)) is not None
    }
    groups = {}
    for name in _GROUPS:
        group, given = getattr(theirs, name), getattr(model, name)
        if group is not None and given is not None:
            values = {n: getattr(given, n) for n in vars(group) if n in given.places}
            groups[name] = replace(group, **values)
    return replace(theirs, **numbers, **groups)


def _filled(model: r.Model, folder: WeightsFolder) -> dict[str, Any]:
    """The attributes that the spec leaves to the folder: field → value."""
    described = folder.described
    assert described.model
    found: dict[str, Any] = {}
    if model.context is None:
        found["context"] = described.longest
    if model.head is None and described.head == "score":
        found["head"] = described.head
    if not _shapeless(model):
        return found
    shape = attributes_of(replace(described.model, tied=described.model.tied and not folder.untied))
    if "family" not in model.places:
        found["family"] = described.family
    for name, value in shape.items():
        given = getattr(model, name)
        if name in _GROUPS:
            found[name] = _group(name, given, value)
        elif given is None:
            found[name] = _scaling(value) if name == "rope_scaling" else value
    return found


def _group(name: str, given: Any, values: dict[str, Any]) -> Any:
    if given is None:
        return _GROUPS[name](**values, places={})
    return replace(given, **{n: v for n, v in values.items() if getattr(given, n) is None})


def _scaling(value: str | dict[str, Any]) -> r.RopeScaling:
    parts: dict[str, Any] = {"kind": value} if isinstance(value, str) else value
    return r.RopeScaling(**parts, places={})


def _tokenizer(
    model: r.Model,
    folder: WeightsFolder,
    tokenizers: dict[str, r.Tokenizer],
    found: dict[str, FromFolder],
) -> str:
    """The name of the folder's tokenizer, which is declared unless an equal one is."""
    if model.name in tokenizers:
        return model.name
    for other in found.values():
        own = {name.rpartition("/")[2]: sha for name, sha in other.files.items()}
        if other.tokenizer and own.get(TOKENIZER) == folder.files[TOKENIZER]:
            return other.tokenizer
    tokenizers[model.name] = r.Tokenizer(
        name=model.name,
        file=_inside(model.weights or "", TOKENIZER),
        places={"": place} if (place := model.at("weights")) else {},
    )
    return model.name


def _dialog(folder: WeightsFolder, written: str) -> dict[str, Any] | None:
    dialog = folder.dialog
    if dialog and "template" in dialog:
        return {"template": _inside(written, dialog["template"])}
    return dialog


def _shown(
    folder: WeightsFolder, tokenizer: str | None, dialog: dict[str, Any] | None
) -> dict[str, tuple[str, str]]:
    """Name → value and file, of what a folder says besides the shape."""
    chat = str(next(iter(dialog.values()))) if dialog else ""
    by = (folder.dialog or {}).get("template", TOKENIZER)
    shown = {
        "dtype": (folder.dtype, CONFIG),
        "tokenizer": (tokenizer or "", TOKENIZER),
        "chat": (chat, by),
        "end_of_text": (folder.end, SETTINGS),
        "end_of_answer": (", ".join(map(str, folder.stops)), GENERATION),
    }
    return {name: each for name, each in shown.items() if each[0]}


def _inside(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
