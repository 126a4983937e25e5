"""The origin of every resolved value.

Editors call `provenance` on the program from `analyse` for their hover texts; plans hold the same
in their `values`. Content keys of jobs do not include it: moving a line retrains nothing.
"""

import posixpath
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from ...spec.quantity import counted, echoed, plain, short
from ...spec.record import fields
from ...spec.schedule import Schedule
from ...spec.schema import recipe as r
from ...spec.source import SET, Span
from ...spec.text.parse import SUFFIXES
from ..as_written import written
from ..families import FAMILIES
from ..files.published_weights import CONFIG
from ..files.weights_folder import TOKENIZER
from ..program import FromFolder, Resolved, Stage, TrainStage, WeightsStage
from ..values import ModelShape, Value
from .plan import Provenance

Kind = Literal["file", "use", "let", "variant", "set", "size", "folder", "from", "default"]


class Origin(NamedTuple):
    """The origin of a value.

    Attributes:
        kind: the main file, a used file, a `let` (anywhere), the variant, `--set`, the published
            size of the model, the folder of its weights, the stage that the stage continues `from`,
            or etude's default.
        span: where it was written; None if nobody wrote it. For a `let` it is the place of its
            name, for a published size the attribute `size`, for a folder the attribute `weights`.
        text: the same for people, in a few words, such as `recipe.etude:12:9`, "let peak, …",
            "variant hot, …" or "from pretrain". Paths are relative to the spec's folder.
        subject: the name of the `let`, variant, size or stage, the file in the folder, or the
            argument of --set.
        source: the source that the spec gives for the value, `cite` or `assumed`; for an inherited
            value, the source given at its origin.
    """

    kind: Kind
    span: Span | None
    text: str
    subject: str = ""
    source: r.Cited | None = None


_NUMBER = re.compile(r"[0-9][0-9,.]*")
_LITERAL = re.compile(
    r"((?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)(?P<suffix>[kBT]|[KMG]i|M|))(?: [a-z]+)?"
)
"""Values shown as one number, and how a spec may write them."""
_WRITTEN = ("file", "use", "variant", "set")
"""Kinds of origins whose place is where the value itself is written."""
DEFAULT = Origin("default", None, "etude's default")
_GROUPS = ("model", "tokenizer", "dataset", "cluster", "dialog", "verifier")


class Origins:
    """Finds where the values of a program were written."""

    def __init__(self, program: Resolved) -> None:
        self.program = program
        self.recipe = recipe = program.recipe
        main = recipe.main.name if recipe.main else ""
        self.folder = posixpath.dirname(main)

    def place(self, span: Span) -> str:
        """File, line and column; the file relative to the folder of the main one."""
        name = span.source.name
        if name.startswith(SET):
            return f"--set {span.source.text.strip()}"
        if self.folder:
            name = posixpath.relpath(name, self.folder)
        return f"{name}:{span.line}:{span.column}"

    def written(self, span: Span) -> Origin:
        """The origin of a value written at `span`."""
        recipe, place = self.recipe, self.place(span)
        let, at = recipe.lets.get(span, ("", span))
        by = f"let {let}, " if let else ""
        for where in (span, at):
            if where.source.name.startswith(SET):
                given = where.source.text.strip()
                return Origin("set", span, f"{by}--set {given}", given)
            for variant, block in recipe.variants.items():
                if _inside(where, block):
                    text = f"{by}variant {variant}, {self.place(where)}"
                    return Origin("variant", span, text, variant)
        if let:
            return Origin("let", span, f"let {let}, {self.place(at)}", let)
        used = recipe.main is not None and span.source != recipe.main
        inner = dict.fromkeys(name for use, (name, _) in recipe.lets.items() if _inside(use, span))
        more = f" with {' and '.join(f'let {name}' for name in inner)}" if inner else ""
        return Origin("use" if used else "file", span, place + more, ", ".join(inner))

    def of(self, block: r.Declaration, attribute: str) -> Origin:
        """The origin of an attribute of a block, before inheritance."""
        span = block.places.get(attribute)
        if span is None:
            return DEFAULT
        return self.written(span)._replace(source=block.sources.get(attribute))

    def model(self, model: r.Model, attribute: str) -> Origin:
        """The origin of an attribute of a model, including its published size."""
        folder = self.program.folders.get(model.name)
        if folder and attribute in folder.filled:
            return self.inside(folder, CONFIG, model)
        family = FAMILIES.get(model.family)
        size = family.sizes.get(model.size or "", {}) if family else {}
        if attribute not in model.places and attribute in size:
            return Origin(
                "size",
                model.at("size"),
                f"published size {model.size}",
                model.size or "",
                model.sources.get("size"),
            )
        return self.of(model, attribute)

    def declared(self, block: r.Declaration, attribute: str) -> Origin:
        """The origin of an attribute of a block other than a stage."""
        if isinstance(block, r.Model):
            return self.model(block, attribute)
        for name, folder in self.program.folders.items():
            if isinstance(block, r.Tokenizer) and folder.tokenizer == block.name == name:
                return self.inside(folder, TOKENIZER, self.recipe.models[name])
        return self.of(block, attribute)

    def inside(self, folder: FromFolder, file: str, model: r.Model) -> Origin:
        """The origin of a value in a file of the folder of a model's weights."""
        path = f"{folder.folder}/{file}"
        return Origin("folder", model.at("weights"), f"from {path}", path)

    def record(self, value: str, origin: Origin) -> Provenance:
        """A value and its origin, as in plans."""
        names = {
            "file": "spec",
            "default": "etude",
            "set": "--set",
            "from": origin.text,
            "folder": origin.text,
            "use": "use",
        }
        of = names.get(origin.kind) or f"{origin.kind} {origin.subject}"
        place = self.place(origin.span) if origin.span else None
        if origin.span and origin.kind in _WRITTEN and _NUMBER.fullmatch(value):
            literal = _LITERAL.fullmatch(origin.span.text)
            if literal and _same(literal, value):
                value = echoed(literal[1])
        source = origin.source
        return Provenance(
            value=value,
            origin=of,
            place=place,
            cite=source.text if source and not source.assumed else None,
            assumed=source.text if source and source.assumed else None,
        )

    def stage(self, stage: Stage, attribute: str) -> Origin:
        """The origin of an attribute of a resolved stage."""
        if attribute in stage.spec.places:
            return self.of(stage.spec, attribute)
        if isinstance(stage, WeightsStage) and (folder := self.program.folders.get(stage.name)):
            _, file = folder.shown.get(attribute, ("", CONFIG))
            return self.inside(folder, file, self.recipe.models[stage.name])
        known = stage.origins.get(attribute, "") if isinstance(stage, TrainStage) else ""
        if known == "model":
            named = stage.begins_with or next(iter(stage.sources), None)
            if named in self.recipe.models:
                return self.model(self.recipe.models[named], attribute)
        if known.startswith("from "):
            name = known.removeprefix("from ")
            before = self.stage(self.program.trained(name), attribute)
            return Origin("from", None, known, name, before.source)
        return DEFAULT


def provenance(program: Resolved) -> dict[tuple[str, str], Origin]:
    """The origins of the values of a checked program.

    Returns: (block, attribute) → origin. Blocks are named as in paths of variants, with numbered
        rounds: `recipe`, `pretrain`, `align.2.dpo`; blocks other than stages have their keyword in
        front: `model.tiny`, `dataset.web`. Attributes have the names that specs use. Those without
        a value or a default are left out.
    """
    return dict(_all(program))


def _all(program: Resolved) -> Iterator[tuple[tuple[str, str], Origin]]:
    recipe = program.recipe
    origins = Origins(program)
    for attribute in _valued(recipe.header):
        yield ("recipe", attribute), origins.of(recipe.header, attribute)
    for keyword in _GROUPS:
        for name, block in getattr(recipe, f"{keyword}s").items():
            for attribute in _valued(block):
                yield (f"{keyword}.{name}", attribute), origins.declared(block, attribute)
    for name, shape in shapes(program).items():
        model = recipe.models[name]
        for attribute, of in r.attributes(r.Model).items():
            belongs = not of.needs or any(getattr(model, need) for need in of.needs)
            if attribute == "mtp" and not shape.mtp:
                continue  # as of any model that does not say it
            if belongs and getattr(shape, attribute, None) is not None:
                yield (f"model.{name}", attribute), origins.model(model, attribute)
    for name, stage in program.stages.items():
        inherited = stage.origins if isinstance(stage, TrainStage) else {}
        for attribute in dict.fromkeys([*_valued(stage.spec), *inherited]):
            yield (name, attribute), origins.stage(stage, attribute)


def declared(program: Resolved) -> dict[str, dict[str, Provenance]]:
    """The values of the blocks other than stages: block → attribute → value."""
    recipe, origins = program.recipe, Origins(program)
    built = shapes(program)
    found: dict[str, dict[str, Provenance]] = {}
    for (block, attribute), origin in _all(program):
        keyword, _, name = block.partition(".")
        if block != "recipe" and (block in program.stages or keyword not in _GROUPS):
            continue
        of: Any = recipe.header if block == "recipe" else getattr(recipe, f"{keyword}s")[name]
        if attribute == "notes" or getattr(of, "stages", None):
            continue  # for readers of the spec, or data drawn by stages, which nobody declared
        value = getattr(of, attribute)
        if value is None:
            value = getattr(built[name], attribute)
        if isinstance(value, r.Fields) and not value.places:
            continue
        found.setdefault(block, {})[attribute] = origins.record(in_words(value), origin)
    return found


def in_words(value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Fraction):
        return f"{short(value * 100)}%"
    if isinstance(value, Schedule):
        return written(value)
    if isinstance(value, r.Needle):
        return f"{counted(value.depths, 'depths')}, {counted(value.samples, 'samples')}"
    if isinstance(value, r.TokenizerTraining):
        return f"{counted(value.vocab, 'tokens')} on {', '.join(value.on)}"
    if isinstance(value, r.Fields):
        return ", ".join(f"{name} {getattr(value, name)}" for name in value.places if name)
    if isinstance(value, r.Precision | r.Tracker):
        return value.shown()
    if isinstance(value, r.Declaration | Value):
        return _group_in_words(value)
    if isinstance(value, int):
        return plain(value)
    if isinstance(value, float):
        return plain(value) if value >= 1000 and value == int(value) else f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(in_words(item) for item in value)
    return str(value)


def _group_in_words(group: r.Declaration | Value) -> str:
    """The parts of a group that have a value, such as `yarn, factor 8, original 8,192`."""
    if isinstance(group, r.Declaration):
        names = {name: each.field for name, each in r.attributes(type(group)).items()}
        kind = getattr(group, "kind", "")
    else:
        names, kind = {name: name for name in fields(group)}, ""
    parts = {name: getattr(group, field) for name, field in names.items()}
    shown = [f"{name} {in_words(part)}" for name, part in parts.items() if part is not None]
    return ", ".join([kind, *shown] if kind else shown)


def shapes(program: Resolved) -> dict[str, ModelShape]:
    """The architectures of the models that stages begin with, by the models' names."""
    return {
        stage.begins_with: stage.model for stage in program.stages.values() if stage.begins_with
    }


def _same(literal: re.Match[str], value: str) -> bool:
    """Whether a spec's number is the one shown, with four digits or more: a miniature's numbers
    differ from those in the text of its recipe.
    """
    written = float(literal["number"].replace("_", "")) * SUFFIXES[literal["suffix"]]
    return f"{written:.4g}" == f"{float(value.replace(',', '')):.4g}"


def _valued(block: r.Declaration) -> list[str]:
    known = r.attributes(type(block))
    return [name for name, of in known.items() if getattr(block, of.field) is not None]


def _inside(span: Span, outer: Span | None) -> bool:
    if outer is None or span.source != outer.source:
        return False
    return outer.start <= span.start and span.end <= outer.end
