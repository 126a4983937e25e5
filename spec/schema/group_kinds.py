"""Kinds of attributes that are statements, or groups of attributes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..record import Record
from ..source import Span
from .convert import Invalid, items, wrong_value
from .convert_schedule import entries
from .kinds import Kind, listed
from .number_kinds import Share

Builder = Callable[..., Any]
"""Builds a group: `(statements, model, place, what it is in words, **fields)` → the model, or None
after reporting what is wrong."""


# Statements


class Statement(Kind, kw_only=False):
    """A statement that is not `name = value`; `how` is an example, shown if one is written so."""

    how: str
    statement: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return self.how

    def written(self, name: str) -> str:
        return self.how

    def takes(self, name: str) -> str:
        return f"the statement `{self.how}`"

    def read(self, value: s.Value) -> Any:
        name = self.how.split()[0]
        help = f"write `{self.how}`" + (" without a value" if self.how == name else "")
        raise Invalid("E201", f"`{name}` is not written like this", value.span, help=help)


class Mark(Statement, kw_only=False):
    """A word alone, such as `bytes`, that makes the attribute true."""

    def takes(self, name: str) -> str:
        return f"the bare word `{name}`"

    def shown(self, value: Any) -> str:
        return "on" if value else "off"


class Block(Statement, kw_only=False):
    """A block inside the block, with its own statements: a gate."""

    holds: type[Any]

    @property
    def model(self) -> type[Any]:
        return self.holds


class Alike(Share):
    """`drop similar > 90%`."""

    statement: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return "90%"

    def written(self, name: str) -> str:
        return f"drop {name} > {self.example}"

    def takes(self, name: str) -> str:
        return f"the statement `{self.written(name)}`"


class Filters(Statement, kw_only=False):
    """`keep 10% where quality.loss > 4.0`, any number of them."""

    how: str = "keep 10% where quality.loss > 4.0"


# Groups of attributes


class Nested(Kind):
    """A group of attributes, read like a block."""

    distinct: ClassVar[bool] = True

    def build(self, name: str, value: s.Value, build: Builder) -> Any:
        """The group that is the value of the attribute `name`; None if `build` reported an error.

        Raises: Invalid: the value is not such a group.
        """
        raise NotImplementedError

    def read(self, value: s.Value) -> Any:
        raise NotImplementedError("groups are built")


class Group(Nested, kw_only=False):
    """`{ name = value, … }`; `typical` are some attributes that are often given."""

    holds: type[Any]
    typical: str

    @property
    def model(self) -> type[Any]:
        return self.holds

    @property
    def example(self) -> str:
        return f"{{ {self.typical} }}"

    def build(self, name: str, value: s.Value, build: Builder) -> Any:
        if not isinstance(value, s.Braces):
            raise Invalid(
                "E201",
                f"`{name}` is a group of attributes",
                value.span,
                help=f"write `{name} = {{ … }}`",
            )
        return build(value.items, self.holds, value.span, f"`{name}`", name=name)


class Tagged(Nested):
    """`adamw { … }`: a group with a kind, or a name.

    Attributes:
        tags: the kinds of the group.
        names: kinds that may be written as a name alone.
        typical: some attributes that are often given.
        what: what it is, for error messages, and `help`: what to write.
        foreign: the attribute's name in `answers.value`.
        many: whether it may also be a list, of each kind at most one; its value is a tuple then.
        own: attributes that only one kind has → that kind.
        defaults: of one kind, where they are not the model's.
    """

    tags: tuple[str, ...]
    names: tuple[str, ...]
    holds: type[Any]
    typical: str
    what: str
    help: str
    foreign: str = ""
    many: bool = False
    own: Mapping[str, str] = MappingProxyType({})
    defaults: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    @property
    def model(self) -> type[Any]:
        return self.holds

    @property
    def choices(self) -> tuple[str, ...]:
        return self.names

    @property
    def example(self) -> str:
        return f"{self.tags[0]} {{ {self.typical} }}"

    def takes(self, name: str) -> str:
        one = listed((*self.names, *(f"{tag} {{ … }}" for tag in self.tags)))
        return f"{one}, or a list of these" if self.many else one

    def build(self, name: str, value: s.Value, build: Builder) -> Any:
        if not self.many:
            return self._one(value, build)
        each = value.items if isinstance(value, s.List) else (value,)
        if not each:
            raise Invalid("E202", f"`{name}` is empty", value.span, help="remove it")
        found: dict[str, Any] = {}
        for one in each:
            of = self._one(one, build)
            if of is None:
                return None
            if of.kind in found:
                raise Invalid("E213", f"`{of.kind}` is named twice", one.span, help="remove one")
            found[of.kind] = of
        return tuple(found.values())

    def _one(self, value: s.Value, build: Builder) -> Any:
        if isinstance(value, s.Path) and value.name in self.names:
            return self.named(value, build)
        if not isinstance(value, s.Tagged) or value.tag.name not in self.tags:
            said = did_you_mean(begun(value), (), of=self.foreign) if self.foreign else ""
            raise Invalid("E202", f"this is not {self.what}", value.span, help=said or self.help)
        kind = value.tag.name
        for item in value.braces.items:
            if isinstance(item, s.Assign) and self.own.get(item.path.name, kind) != kind:
                said = f"remove it: only `{self.own[item.path.name]}` has one"
                message = f"`{kind}` has no attribute `{item.path.name}`"
                raise Invalid("E308", message, item.path.span, help=said)
        return self._of(kind, value.braces.items, value.span, build)

    def named(self, value: s.Path, build: Builder) -> Any:
        """The group that a name alone stands for: that kind, without attributes."""
        return self._of(value.name, (), value.span, build)

    def _of(self, kind: str, items: tuple[s.Item, ...], span: Span, build: Builder) -> Any:
        written = {item.path.name for item in items if isinstance(item, s.Assign)}
        other = {k: v for k, v in self.defaults.get(kind, {}).items() if k not in written}
        return build(items, self.holds, span, kind, name=kind, kind=kind, **other)


class Optimizers(Tagged):
    """`adamw { … }`, `adam`, or `last`: that of the stage before."""

    def named(self, value: s.Path, build: Builder) -> Any:
        return "last" if value.name == "last" else super().named(value, build)


class Periodic(Nested):
    """`polyak every 2 steps over 50%`."""

    holds: type[Any]
    word: str
    what: str
    help: str
    foreign: str = ""
    distinct: ClassVar[bool] = False

    @property
    def model(self) -> type[Any]:
        return self.holds

    @property
    def example(self) -> str:
        return f"{self.word} every 10 steps over 50%"

    def takes(self, name: str) -> str:
        return f"`{self.word} every N steps [over LENGTH]`, as in `{self.written(name)}`"

    def build(self, name: str, value: s.Value, build: Builder) -> Any:
        if not isinstance(value, s.Periodic) or value.what.name != self.word:
            said = did_you_mean(begun(value), (), of=self.foreign)
            raise Invalid("E201", f"this is not {self.what}", value.span, help=said or self.help)
        given = {"every": value.every} | ({"over": value.over} if value.over else {})
        parts = tuple(_assigned(word, of) for word, of in given.items())
        return build(parts, self.holds, value.span, self.word, name=self.word)


def _assigned(name: str, value: s.Number | s.Path) -> s.Assign:
    word = s.Word(name, value.span)
    return s.Assign(s.Path((word,), value.span), None, value, None, None, value.span)


def begun(value: s.Value) -> str:
    """The name that a value begins with, or its text; else ""."""
    match value:
        case s.Tagged():
            return value.tag.name
        case s.Periodic():
            return value.what.name
        case s.Path():
            return value.name
        case s.Text():
            return value.value
    return ""


class Weighted(Kind):
    """Names of blocks of the kinds `of` and their weights, or one name, whose weight is 1."""

    of: tuple[str, ...]

    def __init__(self, *of: str) -> None:
        Record.__init__(self, of=of)

    @property
    def refers(self) -> tuple[str, ...]:
        return self.of

    @property
    def example(self) -> str:
        return "{ right 1, tidy 0.2 }"

    def takes(self, name: str) -> str:
        return f"names of {' or '.join(f'{of}s' for of in self.of)} with weights, or one name"

    def read(self, value: s.Value) -> dict[str, float]:
        if isinstance(value, s.Path | s.Indexed):
            return {value.name: 1.0}
        if isinstance(value, s.List):
            names = [item.name for item in items(value) if isinstance(item, s.Path | s.Indexed)]
            summed = ", ".join(f"{name} 1" for name in names)
            raise wrong_value(
                value,
                "names with weights",
                f"`{{ {summed} }}` for their sum; a stage `ensemble` makes reward models one"
                if len(names) > 1
                else f"`{names[0]}`, without brackets"
                if names
                else self.example,
            )
        if not isinstance(value, s.Braces):
            raise wrong_value(value, "names with weights", self.example)
        weights = entries(value, [""], "a weight: 0.5")
        found = {name: float(number.value) for name, number in weights.items()}
        if not any(found.values()):
            raise Invalid(
                "E210",
                "nothing here has a weight above 0",
                value.span,
                help=f"write {self.example}",
            )
        return found
