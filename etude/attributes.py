"""The building blocks of `etude.build` models: values, texts, names, sources, reasons."""

from typing import Any, TypeAlias

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Written(BaseModel):
    """A frozen value with the names of the language, of which defaults are not written."""

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
    """What a key is sorted by; others keep their order."""
    return _FIRST.index(key) - len(_FIRST) if key in _FIRST else int(key in _LAST)


class Let(Written):
    """The name of a `let` where a string would be a text or a choice."""

    let: str


Text: TypeAlias = str | Let | None
"""A text in a spec: written in quotes there."""
Texts: TypeAlias = str | Let | list[str | Let] | None
Flag: TypeAlias = bool
"""On where its name stands alone in a spec."""
Number: TypeAlias = int | float | str
"""A number, or what a spec would say: `15T`, `8000 steps`, `50%`, the name of a `let`."""
Name: TypeAlias = str
"""The name of a declaration, or a reference such as `previous.chat or pretrain`."""
Names: TypeAlias = list[Name] | Name
"""Some of them; a single one may stand for itself, and so may the name of a `let`."""
Numbers: TypeAlias = list[Number] | Name
Group: TypeAlias = dict[str, Number]
"""Names with numbers: `{"web": "90%", "math": "10%"}`, `{"tensor": 8}`."""
Schedule: TypeAlias = Number | Group
"""A value, or a schedule as a spec says it."""
Value: TypeAlias = bool | Number | list[bool | Number] | dict[str, Number | list[Number]]
"""Of a `let` or a variant: what a spec would say, in which texts have quotes of their own."""
Reasons: TypeAlias = dict[str, str | list[str]]
"""Codes of findings that are silenced, and why."""


class Cite(Written):
    """The place where a value was published."""

    cite: str | Let


class Assumed(Written):
    """Why a value was chosen that the source leaves open."""

    assumed: str | Let


Sources: TypeAlias = dict[str, Cite | Assumed]
"""Attributes, and where their values are from."""

FROM = Field(
    default=None, validation_alias=AliasChoices("from", "from_"), serialization_alias="from"
)
FIELDS = Field(
    default=None, validation_alias=AliasChoices("fields", "fields_"), serialization_alias="fields"
)


class Attributes(Written):
    """Attributes, by the names of the language; those that are None are left out.

    Attributes:
        open: those that are yet to be given, and why; `check` reports each as an error.
    """

    sources: Sources = {}
    open: dict[str, str] = {}


class Block(Attributes):
    """Attributes of a block, and what is silenced in it."""

    allow: Reasons = {}
