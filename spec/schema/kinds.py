"""Kinds of attributes: values that say what an attribute accepts, and read it.

All code that depends on an attribute's type asks its kind: the binder, the JSON form, the Python
models, the language server and the reference.
"""

import json
import re
from typing import Any, ClassVar

from .. import syntax as s
from ..findings.diagnostics import did_you_mean
from ..record import Record
from ..text.keywords import NAME, RESERVED, VALUES, advice, as_name, why_no_name
from .convert import Invalid, items, wrong_value


class Kind(Record):
    """What an attribute accepts.

    Attributes:
        choices: names of the language that it chooses from, or also accepts.
        units: its units, in the plural; a percentage is not one.
        refers: the keywords of the blocks that it names.
        model: for a group of attributes: its contents.
        example: a value as a spec writes it.
        distinct: whether a string in JSON is a literal text; the name of a `let` is then written
            `{"let": NAME}`.
        statement: whether blocks write it other than as `name = value`.
    """

    distinct: ClassVar[bool] = False
    statement: ClassVar[bool] = False

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    @property
    def units(self) -> tuple[str, ...]:
        return ()

    @property
    def refers(self) -> tuple[str, ...]:
        return ()

    @property
    def model(self) -> Any:
        return None

    @property
    def example(self) -> str:
        raise NotImplementedError

    def written(self, name: str) -> str:
        """An attribute of this kind as written in a block, with the example."""
        return f"{name} = {self.example}"

    def takes(self, name: str) -> str:
        """What an attribute of this kind accepts, in words."""
        return f"`{self.example}`"

    def shown(self, value: Any) -> str:
        """A default as a spec would write it."""
        return f"{value:g}" if isinstance(value, float) else str(value)

    def read(self, value: s.Value) -> Any:
        """The value that was written.

        Raises: Invalid: the attribute does not accept it.
        """
        raise NotImplementedError


def listed(names: tuple[str, ...]) -> str:
    """`a`, `b` or `c`, for people."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}" if others else last


class Text(Kind, kw_only=False):
    """A text; with `many` a list of texts, or one text instead of a list. With `filled` it has at
    least one character."""

    many: bool = False
    filled: bool = False
    distinct: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return '["a", "b"]' if self.many else '"a"'

    def takes(self, name: str) -> str:
        return "text or list of texts" if self.many else "text"

    def shown(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def read(self, value: s.Value) -> Any:
        if not self.many:
            found = text(value)
            if self.filled and not found:
                raise Invalid("E208", "this must have at least one character", value.span)
            return found
        if isinstance(value, s.List):
            return [text(item) for item in items(value)]
        return [text(value)]


def text(value: s.Value) -> str:
    """A text in quotes.

    Raises: Invalid: it is something else.
    """
    if not isinstance(value, s.Text):
        said = value.name if isinstance(value, s.Path) else "…"
        raise wrong_value(value, "a text", f'it in double quotes: "{said}"')
    return value.value


class Name(Kind):
    """One name, or with `many` a list of names: those of blocks of the kinds `of`, and `known` ones
    that need no declaration."""

    of: tuple[str, ...]
    many: bool
    known: tuple[str, ...]

    def __init__(self, *of: str, many: bool = False, known: tuple[str, ...] = ()) -> None:
        Record.__init__(self, of=of, many=many, known=known)

    @property
    def refers(self) -> tuple[str, ...]:
        return self.of

    @property
    def choices(self) -> tuple[str, ...]:
        return self.known

    @property
    def example(self) -> str:
        return "[first, second]" if self.many else "first"

    def takes(self, name: str) -> str:
        of = self.of[0] if self.of else "name"
        return f"list of {of}s" if self.many else of

    def read(self, value: s.Value) -> Any:
        if not self.many:
            return name(value)
        if not isinstance(value, s.List):
            said = value.name if isinstance(value, s.Path) else "first, second"
            raise wrong_value(value, "a list of names", f"[{said}]")
        return [name(item) for item in items(value)]


def name(value: s.Value) -> str:
    """A name without quotes.

    Raises: Invalid: it is something else.
    """
    if isinstance(value, s.List):
        raise _not_a_list(value, "one name")
    if not isinstance(value, s.Path):
        raise _no_name(value)
    return value.name


def _no_name(value: s.Value) -> Invalid:
    """The error for a value that is no name: a text, or something else."""
    said = value.value if isinstance(value, s.Text) else ""
    if re.fullmatch(NAME, said):
        return wrong_value(value, "a name", f"it without quotes: {said}")
    plain = as_name(said)
    if plain:
        return wrong_value(
            value,
            "a name",
            f"`{plain}`: names have small letters, digits and `_`, and no quotes",
        )
    return wrong_value(value, "a name", "the name of a declaration, without quotes")


def _not_a_list(value: s.List, wanted: str, more: str = "") -> Invalid:
    """The error for a list where one name is meant."""
    names = [item.name for item in value.items if isinstance(item, s.Path | s.Indexed | s.Either)]
    return Invalid(
        "E201",
        f"this must be {wanted}, not a list",
        value.span,
        help=""
        if not names
        else f"write `{names[0]}`, without brackets"
        if len(value.items) == 1
        else f"write one of them, such as `{names[0]}`{more}",
    )


class Ref(Kind):
    """A reference of a stage, as text: `anneal`, `prompts[round]`, `previous.chat or anneal`; with
    `many` one of these or a list of them."""

    of: tuple[str, ...]
    many: bool

    def __init__(self, *of: str, many: bool = False) -> None:
        Record.__init__(self, of=of, many=many)

    @property
    def refers(self) -> tuple[str, ...]:
        return self.of

    @property
    def example(self) -> str:
        return "[first, second]" if self.many else "first"

    def takes(self, name: str) -> str:
        several = "s" * self.many
        one = f"list of {self.of[0]}s" if self.many else self.of[0]
        return one + (f", or model{several} with weights" if "model" in self.of else "")

    def read(self, value: s.Value) -> Any:
        if not self.many:
            if isinstance(value, s.List):
                raise _not_a_list(value, "one name", self._as_one(value))
            return _reference(value)
        if isinstance(value, s.List):
            return [_reference(item) for item in items(value)]
        return [_reference(value)]

    def _as_one(self, value: s.List) -> str:
        """How several are one, behind other advice; "" if they cannot be."""
        if "model" not in self.of:
            return ""
        names = ", ".join(map(_reference, items(value)))
        return (
            f"; the mean of their weights is one: `stage mean: average {{ of = [{names}] }}`, "
            "named as `mean`"
        )


class Judge(Ref):
    """A reference of the one model that judges; several are one as an ensemble."""

    def __init__(self, *of: str) -> None:
        super().__init__(*of)

    def read(self, value: s.Value) -> Any:
        if isinstance(value, s.List):
            names = ", ".join(_reference(item) for item in items(value))
            raise Invalid(
                "E201",
                "this must be one judge, not a list",
                value.span,
                help=f"make them one: `stage jury: ensemble {{ of = [{names}] }}`, and write "
                "`judge = jury`"
                if len(value.items) > 1
                else f"write `{names}`, without brackets",
            )
        return super().read(value)


def _reference(value: s.Value) -> str:
    if not isinstance(value, s.Path | s.Indexed | s.Either):
        raise _no_name(value)
    return value.name


class OneOf(Kind):
    """One of some names; `foreign` is the attribute's name in `answers.value`."""

    names: tuple[str, ...]
    foreign: str
    distinct: ClassVar[bool] = True

    def __init__(self, *names: str, foreign: str = "") -> None:
        Record.__init__(self, names=names, foreign=foreign)

    @property
    def choices(self) -> tuple[str, ...]:
        return self.names

    @property
    def example(self) -> str:
        return self.names[0]

    def takes(self, name: str) -> str:
        return listed(self.names)

    def read(self, value: s.Value) -> Any:
        if not isinstance(value, s.Path | s.Text):
            raise wrong_value(value, listed(self.names), f"`{self.names[0]}`, without quotes")
        chosen = name(value)
        if chosen not in self.names:
            raise Invalid(
                "E202",
                f"`{chosen}` is not one of {', '.join(self.names)}",
                value.span,
                help=did_you_mean(chosen, self.names, of=self.foreign),
            )
        return chosen


class Flag(OneOf):
    """`true` or `false`."""

    def __init__(self) -> None:
        super().__init__("true", "false")

    def shown(self, value: Any) -> str:
        return str(value).lower()

    def read(self, value: s.Value) -> bool:
        return super().read(value) == "true"


class Suites(Kind):
    """Names of tasks by capability."""

    distinct: ClassVar[bool] = True

    @property
    def example(self) -> str:
        return '{ math ["gsm8k"], code ["humaneval"] }'

    def read(self, value: s.Value) -> dict[str, list[str]]:
        if not isinstance(value, s.Braces):
            raise wrong_value(value, "a group of tasks", self.example)
        found: dict[str, list[str]] = {}
        for item in value.items:
            if not isinstance(item, s.Entry) or not isinstance(item.value, s.List | s.Text):
                raise Invalid(
                    "E212",
                    "this is not a capability and its tasks",
                    item.span,
                    help='write `math ["gsm8k"]`',
                )
            name = item.word.name
            if name in RESERVED and name not in VALUES:
                help = advice(name, "capability")
                raise Invalid("E306", why_no_name(name), item.word.span, help=help)
            if name in found:
                raise Invalid("E213", f"`{name}` is named twice", item.word.span)
            found[name] = Text(many=True).read(item.value)
        if not found:
            raise Invalid("E208", "there are no tasks here", value.span)
        return found
