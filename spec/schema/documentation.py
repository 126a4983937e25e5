"""Reference texts of attributes: what they accept, their defaults and their meaning."""

import re
from typing import NamedTuple

from ..record import MISSING, Record
from .declaration import Attribute, Declaration, attributes, statements

NOTHING = "—"
"""Shown if there is no default."""
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class Entry(NamedTuple):
    """An attribute in the reference: what it accepts, its default, its meaning."""

    value: str
    default: str
    meaning: str

    @property
    def without_links(self) -> "Entry":
        return Entry(*(_LINK.sub(r"\1", text) for text in self))


def entry(name: str, attribute: Attribute) -> Entry:
    """The reference entry of an attribute."""
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
    """The reference entry, without links, of a block's attribute or of a statement that is one in
    JSON; None if the block has none of this name."""
    attribute = attributes(model).get(name) or statements(model).get(name)
    return entry(name, attribute).without_links if attribute else None


def about(model: type[Declaration]) -> str:
    """What a kind of block is, from its docstring."""
    return (model.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")


def markdown(name: str, entry: Entry) -> str:
    """A reference entry as Markdown, shown beside the code."""
    default = "" if entry.default in (NOTHING, "required") else f"; default: {entry.default}"
    needed = "; required" if entry.default == "required" else ""
    return f"**`{name}`** — {entry.meaning}\n\nTakes {entry.value}{needed}{default}."
