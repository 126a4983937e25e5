"""Where every resolved value came from.

Editors call `provenance` on the program that `check_recipe` gives, for what they show on hover;
plans hold the same in their `values`. Content keys of jobs know nothing of it: a line that moves
retrains nothing.
"""

import posixpath
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from ..spec import recipe as r
from ..spec.source import Span
from .architectures import PUBLISHED
from .program import Program, TrainStage

Kind = Literal["file", "use", "let", "variant", "set", "size", "from", "default"]


class Origin(NamedTuple):
    """Where a value came from.

    Attributes:
        kind: the main file, a used file, a `let` (anywhere), the variant, `--set`, the published
            size of the model, the stage that the stage goes on `from`, or etude's default.
        span: where it was written; None for what nobody wrote. Of a `let` it is the place where
            its name stands, of a published size the attribute `size`.
        text: the same for people, in a few words, such as `recipe.etude:12:9`, "let peak, …",
            "variant hot, …" or "from pretrain". Paths are relative to the spec's folder.
        subject: the name of the `let`, variant, size or stage, and what --set was given.
    """

    kind: Kind
    span: Span | None
    text: str
    subject: str = ""


DEFAULT = Origin("default", None, "etude's default")
_GROUPS = ("model", "tokenizer", "dataset", "cluster", "dialog")


class Origins:
    """Tells where the values of a recipe were written."""

    def __init__(self, recipe: r.Recipe) -> None:
        self.recipe = recipe
        main = recipe.main.name if recipe.main else ""
        self.folder = posixpath.dirname(main)

    def place(self, span: Span) -> str:
        """File, line and column; the file relative to the folder of the main one."""
        name = span.source.name
        if self.folder and not name.startswith("--set:"):
            name = posixpath.relpath(name, self.folder)
        return f"{name}:{span.line}:{span.column}"

    def written(self, span: Span) -> Origin:
        """The origin of a value that stands at `span`."""
        recipe, place = self.recipe, self.place(span)
        let, at = recipe.lets.get(span, ("", span))
        by = f"let {let}, " if let else ""
        for where in (span, at):
            if where.source.name.startswith("--set:"):
                given = where.source.text.strip()
                return Origin("set", span, f"{by}--set {given}", given)
            if _inside(where, recipe.variants.get(recipe.variant)):
                text = f"{by}variant {recipe.variant}, {self.place(where)}"
                return Origin("variant", span, text, recipe.variant)
        if let:
            return Origin("let", span, f"let {let}, {self.place(at)}", let)
        used = recipe.main is not None and span.source != recipe.main
        inner = dict.fromkeys(name for use, (name, _) in recipe.lets.items() if _inside(use, span))
        more = f" with {' and '.join(f'let {name}' for name in inner)}" if inner else ""
        return Origin("use" if used else "file", span, place + more, ", ".join(inner))

    def of(self, block: r.Declaration, attribute: str) -> Origin:
        """The origin of an attribute of a block, before anything is inherited."""
        span = block.places.get(attribute)
        return self.written(span) if span else DEFAULT

    def model(self, model: r.Model, attribute: str) -> Origin:
        """The origin of an attribute of a model, its published size included."""
        sizes = PUBLISHED.get(model.family, {})
        if attribute not in model.places and attribute in sizes.get(model.size or "", {}):
            return Origin("size", model.at("size"), f"published size {model.size}",
                          model.size or "")  # fmt: skip
        return self.of(model, attribute)

    def stage(self, stage: Any, attribute: str) -> Origin:
        """The origin of an attribute of a resolved stage."""
        if attribute in stage.spec.places:
            return self.of(stage.spec, attribute)
        known = stage.origins.get(attribute, "") if isinstance(stage, TrainStage) else ""
        if known == "model" and stage.spec.model:
            return self.model(self.recipe.models[stage.spec.model], attribute)
        if known.startswith("from "):
            source = known.removeprefix("from ")
            return Origin("from", None, known, source)
        return DEFAULT


def provenance(program: Program) -> dict[tuple[str, str], Origin]:
    """Where the values of a checked program came from.

    Returns: (block, attribute) → origin. A block is named as paths of variants name it, the rounds
        numbered: `recipe`, `pretrain`, `align.2.dpo`, and with the keyword in front what is no
        stage: `model.tiny`, `dataset.web`. Attributes have the names that specs use. What has
        neither a value nor a default is left out.
    """
    return dict(_all(program))


def _all(program: Program) -> Iterator[tuple[tuple[str, str], Origin]]:
    recipe = program.recipe
    origins = Origins(recipe)
    for attribute in _valued(recipe.header):
        yield ("recipe", attribute), origins.of(recipe.header, attribute)
    for keyword in _GROUPS:
        for name, block in getattr(recipe, f"{keyword}s").items():
            for attribute in _valued(block):
                yield (f"{keyword}.{name}", attribute), origins.of(block, attribute)
    shapes = {
        stage.spec.model: stage.model
        for stage in program.stages.values()
        if isinstance(stage, TrainStage) and stage.spec.model
    }
    for name, shape in shapes.items():
        model = recipe.models[name]
        for attribute in r.attributes(r.Model):
            if getattr(shape, attribute, None) is not None:
                yield (f"model.{name}", attribute), origins.model(model, attribute)
    for name, stage in program.stages.items():
        inherited = stage.origins if isinstance(stage, TrainStage) else {}
        for attribute in dict.fromkeys([*_valued(stage.spec), *inherited]):
            yield (name, attribute), origins.stage(stage, attribute)


def _valued(block: r.Declaration) -> list[str]:
    known = r.attributes(type(block))
    return [name for name, of in known.items() if getattr(block, of.field) is not None]


def _inside(span: Span, outer: Span | None) -> bool:
    if outer is None or span.source != outer.source:
        return False
    return outer.start <= span.start and span.end <= outer.end
