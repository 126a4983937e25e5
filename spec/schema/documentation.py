"""Reference texts of attributes: what they take, their defaults and their meaning."""

import re
from typing import NamedTuple

from ..record import MISSING, Record
from .declaration import Attribute, Declaration, attributes, statements

NOTHING = "—"
"""There is no default."""
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class Entry(NamedTuple):
    """An attribute in the reference: what it takes, what it is where left out, what it means."""

    value: str
    default: str
    meaning: str

    @property
    def without_links(self) -> "Entry":
        return Entry(*(_LINK.sub(r"\1", text) for text in self))


def entry(name: str, attribute: Attribute) -> Entry:
    """What the reference says of an attribute."""
    takes = attribute.takes or attribute.kind.takes(name)
    return Entry(takes, _default(attribute), attribute.doc)


def _default(attribute: Attribute) -> str:
    default = attribute.default
    if attribute.required:
        return "required"
    if attribute.otherwise or default in (None, MISSING) or isinstance(default, Record):
        return attribute.otherwise or NOTHING
    shown = attribute.kind.shown(default)
    return shown if attribute.kind.statement else f"`{shown}`"


def documentation(model: type[Declaration], name: str) -> Entry | None:
    """What the reference says of an attribute of a block, or of a statement that is one in JSON,
    without links; None where the block has none of this name."""
    attribute = attributes(model).get(name) or statements(model).get(name)
    return entry(name, attribute).without_links if attribute else None


def about(model: type[Declaration]) -> str:
    """What a kind of block is, in its own words."""
    return (model.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def markdown(name: str, entry: Entry) -> str:
    """An entry of the reference, to be shown beside the code."""
    default = "" if entry.default in (NOTHING, "required") else f"; default: {entry.default}"
    needed = "; required" if entry.default == "required" else ""
    return f"**`{name}`** — {entry.meaning}\n\nTakes {entry.value}{needed}{default}."
