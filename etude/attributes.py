"""The building blocks of `etude.build` models: values, texts, names, sources, reasons."""

from typing import Annotated, Any, TypeAlias

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Written(BaseModel):
    """A frozen value with the names of the language; defaults are not written."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, serialize_by_alias=True, allow_inf_nan=False
    )

    @model_serializer(mode="wrap")
    def _given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = {of.serialization_alias or n: (n, of) for n, of in type(self).model_fields.items()}
        found = {
            key: value
            for key, value in write(self).items()
            if (key in _ALWAYS and value is not None)
            or key not in fields
            or getattr(self, fields[key][0]) != fields[key][1].default
        }
        return dict(sorted(found.items(), key=lambda of: _place(of[0])))


_ALWAYS = ("etude_spec", "kind")
_FIRST = ("$schema", "etude_spec", "name", "kind", "model", "from", "of")
_LAST = ("sources", "allow", "open")


def _place(key: str) -> int:
    """The sort key of a key; unlisted ones keep their order."""
    return _FIRST.index(key) - len(_FIRST) if key in _FIRST else int(key in _LAST)


class Let(Written):
    """The name of a `let`, where a string would mean a text or a choice."""

    let: str


Text: TypeAlias = str | Let | None
"""A text, which is in quotes in a spec."""
Texts: TypeAlias = str | Let | list[str | Let] | None
Flag: TypeAlias = bool
"""True for an attribute that is just its name in a spec."""
Number: TypeAlias = int | float | str
"""A number, or its spec notation: `15T`, `8000 steps`, `50%`, the name of a `let`."""
Name: TypeAlias = str
"""The name of a declaration, or a reference such as `previous.chat or pretrain`."""
Budget: TypeAlias = Annotated[str, Field(pattern=r"^budget [0-9][0-9_.]*%$")]
"""The share of the activations that is kept: `budget 60%`."""
Names: TypeAlias = list[Name] | Name
"""Several names; also a single one, or the name of a `let`."""
Numbers: TypeAlias = list[Number] | Name
Group: TypeAlias = dict[str, Number]
"""Names with numbers: `{"web": "90%", "math": "10%"}`, `{"tensor": 8}`."""
Schedule: TypeAlias = Number | Group
"""A value, or a schedule in spec notation."""
Value: TypeAlias = bool | Number | list[bool | Number] | dict[str, Number | list[Number]]
"""For a `let` or a variant: spec notation, in which texts have their own quotes."""
Reasons: TypeAlias = dict[str, str | list[str]]
"""Codes of silenced findings, and the reasons."""


class Cite(Written):
    """The place where a value was published."""

    cite: str | Let


class Assumed(Written):
    """Why a value that the source leaves open was chosen."""

    assumed: str | Let


Sources: TypeAlias = dict[str, Cite | Assumed]
"""Attributes, and the sources of their values."""

FROM = Field(
    default=None, validation_alias=AliasChoices("from", "from_"), serialization_alias="from"
)
FIELDS = Field(
    default=None, validation_alias=AliasChoices("fields", "fields_"), serialization_alias="fields"
)
SCHEMA = Field(
    default=None, validation_alias=AliasChoices("schema", "schema_"), serialization_alias="schema"
)
EXCEPT = Field(
    default=None, validation_alias=AliasChoices("except", "except_"), serialization_alias="except"
)


class Attributes(Written):
    """Attributes, by the names of the language; None means left out.

    Attributes:
        open: attributes that are still to be given, and why; `check` reports each as an error.
    """

    sources: Sources = {}
    open: dict[str, str] = {}


class Block(Attributes):
    """Attributes of a block, and the findings silenced in it."""

    allow: Reasons = {}
