"""What blocks have in common: attributes, each declared once with the function that reads it."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from . import convert as c
from .record import MISSING, Record, field, fields
from .source import Span


def attribute(read: Callable[[Any], Any] | None, default: Any = MISSING, name: str = "") -> Any:
    """An attribute of a block.

    Args:
        read: makes its value from a node of the syntax tree; None: the binder makes it.
        default: MISSING where the attribute is required.
        name: as written in a spec, where that is no Python name.
    """
    return field(default=default, metadata=(read, name))


def whole(unit: str = "", least: int = 1, most: int | None = None) -> Callable[[Any], int]:
    """Reads a whole number, in the given unit or without one."""
    return c.count(*([unit] if unit else []), least=least, most=most)


MOST = 10**9
"""No dimension of a model or an evaluation is larger."""


class Cited(Record):
    """Where a value is from: the place where it was published, or why it was assumed."""

    assumed: bool
    text: str
    span: Span = field(compare=False)


class Declaration(Record):
    """A named block. `places` maps attributes to where they were written, "" to the head, and
    `sources` to where their values are from."""

    name: str = ""
    places: dict[str, Span] = field(default_factory=dict, compare=False)
    sources: dict[str, Cited] = field(default_factory=dict, compare=False)

    def at(self, attribute: str = "") -> Span | None:
        """Where an attribute was written, or else the block's head."""
        return self.places.get(attribute) or self.places.get("")


class Attribute(NamedTuple):
    """What a model says of one of its attributes."""

    field: str
    read: Callable[[Any], Any] | None
    required: bool


@cache
def attributes(model: type[Declaration]) -> dict[str, Attribute]:
    """The attributes that a block of a kind may have, by the names that specs use."""
    found = {}
    for name, of in fields(model).items():
        if of.metadata:
            read, written = of.metadata
            found[written or name] = Attribute(name, read, of.default is MISSING)
    return found
