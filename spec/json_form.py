"""The form of specs in JSON: what its names are, and which attributes are texts and groups.

    {
      "etude_spec": 1,
      "name": "small",
      "models": {"tiny": {"layers": 2, "dim": 96, …}},
      "stages": {"pretrain": {"kind": "train", "model": "tiny", "lr": "0 -> 3e-4 for 1%", …}}
    }

`from_json` reads it, `to_json` writes it, `etude.build` has it as pydantic models.
"""

from functools import cache
from typing import TypeVar

from . import convert as c
from . import recipe as r
from . import syntax as s
from .groups import GROUPS

VERSION = 1
MARK = "etude_spec"
"""The key that says that a file is a spec, and of which version of the form."""
SCHEMA = "$schema"
"""A key for editors; it means nothing here."""
BLOCKS = {
    "models": "model",
    "tokenizers": "tokenizer",
    "datasets": "dataset",
    "dialogs": "dialog",
    "clusters": "cluster",
}
"""Key → the keyword of the blocks that it holds by name."""
TOP = (
    SCHEMA,
    MARK,
    "name",
    *r.attributes(r.Header),
    "sources",
    "allow",
    "open",
    "use",
    "let",
    *BLOCKS,
    "stages",
    "expect",
    "variants",
)
"""What a spec may hold, in the canonical order."""
RESERVED = ("kind", "sources", "allow", "open")
"""Keys of blocks that are no attributes, unless the block has one of this name."""
FLAGS = ("bytes", "awaited")
TAGGED: dict[str, tuple[type[r.Declaration], tuple[str, ...]]] = {
    "optimizer": (r.Optimizer, ("adamw", "adam", "last")),
    "rope_scaling": (r.RopeScaling, ("none", "llama")),
}
"""Attributes that are groups with a kind, `adamw { … }`, or names: the group, and the names."""
STATEMENTS = {"filters": r.Dataset, "similar": r.PreferenceTraining}
"""What texts have as statements → the model of the blocks that may have it."""

Of = TypeVar("Of")

Model = type[r.Declaration] | None
"""The model of a block; None where its kind is unknown."""


def is_text(model: Model, name: str) -> bool:
    """Whether an attribute is a text, or a list of texts."""
    attribute = r.attributes(model).get(name) if model else None
    return attribute is not None and attribute.read in (c.text, c.texts)


def choices(model: Model, name: str) -> tuple[str, ...]:
    """The names of which an attribute is one, where it is one of some."""
    if has(model, name) and name in TAGGED:
        return TAGGED[name][1]
    attribute = r.attributes(model).get(name) if model else None
    if attribute is None:
        return ()
    return ("true", "false") if attribute.read is c.flag else getattr(attribute.read, "choices", ())


def named(model: Model, name: str) -> bool:
    """Whether a `let` is named as `{"let": "NAME"}`, where a string would be something else."""
    return (
        is_text(model, name)
        or bool(choices(model, name))
        or group(model, name) is not None
        or (name == "suites" and has(model, name))
    )


def group(model: Model, name: str) -> Model:
    """The model of an attribute that is a group of attributes; None where it is none."""
    if model is r.Gate and name == "needle":
        return r.Needle
    return GROUPS.get((model, name)) if model else None


def has(model: Model, name: str) -> bool:
    """Whether blocks of a model have an attribute."""
    return model is not None and (name in r.attributes(model) or group(model, name) is not None)


def takes(model: Model, statement: str) -> bool:
    """Whether blocks of a model have filters, or leave out similar responses."""
    return model is not None and issubclass(model, STATEMENTS[statement])


@cache
def names(model: type[r.Declaration]) -> tuple[str, ...]:
    """The attributes of blocks of a model, and what stands for statements."""
    more = ("needle",) if model is r.Gate else ()
    return (*r.attributes(model), *more, *(of for of in STATEMENTS if takes(model, of)))


def in_steps(every: Of) -> Of:
    """A number of steps with its unit, and anything else as it is."""
    if not isinstance(every, s.Number) or every.unit or every.suffix in ("%", "x"):
        return every
    unit = s.Word("step" if every.value == 1 else "steps", every.span)
    return every._replace(unit=unit, text=f"{every.text} {unit.name}")
