"""The form of specs in JSON: its names, and which attributes are texts and groups.

    {
      "etude_spec": 1,
      "name": "small",
      "models": {"tiny": {"layers": 2, "dim": 96, …}},
      "stages": {"pretrain": {"kind": "train", "model": "tiny", "lr": "0 -> 3e-4 for 1%", …}}
    }

`from_json` reads it, `to_json` writes it, `etude.build` has it as pydantic models.
"""

from typing import TypeVar

from .. import syntax as s
from ..schema import group_kinds as g
from ..schema import recipe as r

VERSION = 1
MARK = "etude_spec"
"""The key that marks a file as a spec and gives the version of the form."""
SCHEMA = "$schema"
"""A key for editors, ignored here."""
BLOCKS = {
    "models": "model",
    "tokenizers": "tokenizer",
    "datasets": "dataset",
    "dialogs": "dialog",
    "verifiers": "verifier",
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
"""Keys of blocks that are not attributes, unless the block has an attribute of that name."""

Of = TypeVar("Of")

Model = type[r.Declaration] | None
"""The model of a block; None if its kind is unknown."""


def group(model: Model, name: str) -> type[r.Declaration] | None:
    """The model of an attribute that is a group of attributes; else None."""
    of = r.kind_of(model, name)
    return of.holds if isinstance(of, g.Group) else None


def has(model: Model, name: str) -> bool:
    """Whether blocks of a model have an attribute."""
    return model is not None and name in r.attributes(model)


def names(model: type[r.Declaration]) -> tuple[str, ...]:
    """The attributes of blocks of a model, and its keys for statements."""
    return (*r.attributes(model), *r.statements(model))


def in_steps(every: Of) -> Of:
    """A number of steps with its unit; anything else unchanged."""
    if not isinstance(every, s.Number) or every.unit or every.suffix in ("%", "x"):
        return every
    unit = s.Word("step" if every.value == 1 else "steps", every.span)
    return every._replace(unit=unit, text=f"{every.text} {unit.name}")
