"""What blocks have in common: attributes, each declared once with its kind."""

from functools import cache
from typing import Any, ClassVar, NamedTuple

from ..record import MISSING, Record, field, fields
from ..source import Span
from .kinds import Kind


class _Declared(NamedTuple):
    """What a field's declaration says besides its default."""

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
        default: MISSING if the attribute is required.
        doc: its meaning, for the reference; may contain links.
        name: as written in a spec, if that is not a Python name.
        takes: what it accepts, if the kind does not say all of it.
        otherwise: what holds if it is left out, if the default does not say it.
        needs: attributes that it belongs to: without any of them it has no effect.
        inherits: for an attribute that a stage inherits from the stage before: the value if there
            is no stage before. No pass has to know the attribute.
    """
    declared = _Declared(kind, doc, name, takes, otherwise, needs, inherits)
    return field(default=default, metadata=declared)


def statement(kind: Kind, default: Any, *, doc: str) -> Any:
    """A statement of a block that is an attribute in JSON; with `list` as default, empty."""
    declared = _Declared(kind, doc, statement=True)
    if default is list:
        return field(default_factory=list, metadata=declared)
    return field(default=default, metadata=declared)


class Cited(Record):
    """Where a value comes from: the place where it was published, or why it was assumed."""

    assumed: bool
    text: str
    span: Span = field(compare=False)


class Declaration(Record):
    """A named block. `places` maps attributes to where they were written, "" to the head, and
    `sources` to where their values come from.

    Attributes:
        entries: whether `name value` is an attribute, too.
        ways: sets of attributes that exclude each other.
    """

    entries: ClassVar[bool] = False
    ways: ClassVar[tuple[tuple[str, ...], ...]] = ()

    name: str = ""
    places: dict[str, Span] = field(default_factory=dict, compare=False)
    sources: dict[str, Cited] = field(default_factory=dict, compare=False)

    def at(self, attribute: str = "") -> Span | None:
        """Where an attribute was written; if it was not, the block's head."""
        return self.places.get(attribute) or self.places.get("")


class Attribute(NamedTuple):
    """What a model says about one of its attributes.

    Attributes:
        field: its name in Python.
        takes, otherwise, doc: what it accepts, what holds if it is left out, and its meaning.
        inherits: the value if there is no stage to inherit from; MISSING if it is not inherited.
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
    """The attributes of a kind of block, by their names in specs."""
    return _declared(model, statement=False)


@cache
def statements(model: type[Declaration]) -> dict[str, Attribute]:
    """The statements of a kind of block, by their names in JSON."""
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
    """The kind of an attribute, or of a statement that is an attribute in JSON; else None."""
    if model is None:
        return None
    attribute = attributes(model).get(name) or statements(model).get(name)
    return attribute.kind if attribute else None
