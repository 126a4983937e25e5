"""What blocks have in common: attributes, each declared once with its kind."""

from functools import cache
from typing import Any, ClassVar, NamedTuple

from ..record import MISSING, Record, field, fields
from ..source import Span
from .kinds import Kind


class _Declared(NamedTuple):
    """What a field's declaration says beside its default."""

    kind: Kind
    doc: str
    name: str = ""
    takes: str = ""
    otherwise: str = ""
    needs: tuple[str, ...] = ()
    inherits: Any = MISSING
    statement: bool = False


def attribute(
    kind: Kind,
    default: Any = MISSING,
    *,
    doc: str,
    name: str = "",
    takes: str = "",
    otherwise: str = "",
    needs: tuple[str, ...] = (),
    inherits: Any = MISSING,
) -> Any:
    """An attribute of a block.

    Args:
        default: MISSING where the attribute is required.
        doc: what it means, for the reference: links lead from there.
        name: as written in a spec, where that is no Python name.
        takes: what it takes, where the kind does not say all of it.
        otherwise: what holds where it is left out, where the default does not say it.
        needs: the attributes to which it belongs: without any of them it says nothing.
        inherits: of an attribute that a stage takes over from the stage before: the value where
            there is none before. No pass has to know it.
    """
    declared = _Declared(kind, doc, name, takes, otherwise, needs, inherits)
    return field(default=default, metadata=declared)


def statement(kind: Kind, default: Any, *, doc: str) -> Any:
    """What a block says in statements, and JSON as an attribute; `list` begins with none."""
    declared = _Declared(kind, doc, statement=True)
    if default is list:
        return field(default_factory=list, metadata=declared)
    return field(default=default, metadata=declared)


class Cited(Record):
    """Where a value is from: the place where it was published, or why it was assumed."""

    assumed: bool
    text: str
    span: Span = field(compare=False)


class Declaration(Record):
    """A named block. `places` maps attributes to where they were written, "" to the head, and
    `sources` to where their values are from.

    Attributes:
        entries: whether `name value` is an attribute, too.
        ways: attributes that exclude each other, in sets.
    """

    entries: ClassVar[bool] = False
    ways: ClassVar[tuple[tuple[str, ...], ...]] = ()

    name: str = ""
    places: dict[str, Span] = field(default_factory=dict, compare=False)
    sources: dict[str, Cited] = field(default_factory=dict, compare=False)

    def at(self, attribute: str = "") -> Span | None:
        """Where an attribute was written, or else the block's head."""
        return self.places.get(attribute) or self.places.get("")


class Attribute(NamedTuple):
    """What a model says of one of its attributes.

    Attributes:
        field: its name in Python.
        takes, otherwise, doc: what it takes, what holds where it is left out, and what it means.
        inherits: what holds where it could be taken over from nothing; MISSING where it never is.
    """

    field: str
    kind: Kind
    required: bool
    default: Any
    needs: tuple[str, ...]
    takes: str
    otherwise: str
    doc: str
    inherits: Any


@cache
def attributes(model: type[Declaration]) -> dict[str, Attribute]:
    """The attributes that a block of a kind may have, by the names that specs use."""
    return _declared(model, statement=False)


@cache
def statements(model: type[Declaration]) -> dict[str, Attribute]:
    """What blocks of a kind say in statements, by the names that JSON uses."""
    return _declared(model, statement=True)


def _declared(model: type[Declaration], *, statement: bool) -> dict[str, Attribute]:
    found = {}
    for field_name, of in fields(model).items():
        says = of.metadata
        if says and says.statement == statement:
            name = says.name or field_name
            found[name] = Attribute(
                field_name,
                says.kind,
                of.default is MISSING and of.default_factory is None,
                of.default,
                says.needs,
                says.takes,
                says.otherwise,
                says.doc,
                says.inherits,
            )
    return found


def kind_of(model: type[Declaration] | None, name: str) -> Kind | None:
    """What an attribute of a block takes, or a statement that is one in JSON; None of others."""
    if model is None:
        return None
    attribute = attributes(model).get(name) or statements(model).get(name)
    return attribute.kind if attribute else None
