"""Converts values of the JSON form to values of the syntax tree.

A string is parsed like a spec, so its errors are found and reported the same way; their places are
moved to the string.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeAlias, TypeVar

from .. import syntax as s
from ..findings.diagnostics import Report
from ..source import Source, Span
from ..text.parse import number, parse
from .json_text import Node, Numeral

Of = TypeVar("Of")
Entries: TypeAlias = dict[str, tuple[Node, Node]]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANGE = re.compile(r"\s*[0-9][0-9_]*\s*\.\.\s*\S+\s*")
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_VALUE = "value = "


class Bad(Exception):
    """A value that is not allowed here; already reported."""


class Values:
    """Reads values, and reports what is wrong."""

    def __init__(self, source: Source, report: Report) -> None:
        self.source = source
        self.report = report

    def error(self, code: str, message: str, at: Node | Span, **rest: Any) -> None:
        """Reports what is wrong at a node, or at a place."""
        self.report.add(code, message, at.span if isinstance(at, Node) else at, **rest)

    def wrong(self, node: Node, wanted: str, help: str = "") -> NoReturn:
        """Raises: Bad: always, after reporting."""
        self.error("E133", f"this must be {wanted}, not {node.kind}", node, help=help)
        raise Bad

    def each(self, nodes: Iterable[Any], make: Callable[[Any], Of | None]) -> Iterator[Of]:
        """The results for the nodes that are right."""
        for node in nodes:
            try:
                result = make(node)
            except Bad:
                continue
            if result is not None:
                yield result

    def object(self, node: Node, what: str) -> Entries:
        """The entries of an object; nulls are left out."""
        if not isinstance(node.value, dict):
            self.wrong(node, f"an object with {what}")
        return {key: pair for key, pair in node.value.items() if pair[1].value is not None}

    def string(self, node: Node, what: str) -> s.Word:
        """A string that is a name."""
        if type(node.value) is not str:
            self.wrong(node, what)
        return s.Word(node.value, node.inside)

    def text(self, node: Node) -> s.Text | s.Path:
        """A text, or the name of a `let` that is one: `{"let": "NAME"}`."""
        if type(node.value) is str:
            return s.Text(node.value, node.span)
        return self.let(node) or self.wrong(
            node, "a text", 'write it as a string, or the name of a `let` as {"let": "NAME"}'
        )

    def let(self, node: Node) -> s.Path | None:
        """The `let` that `{"let": "NAME"}` names; None for anything else."""
        if not isinstance(node.value, dict) or node.value.keys() != {"let"}:
            return None
        word = self.string(node.value["let"][1], "the name of a `let`")
        if not _NAME.fullmatch(word.name):
            self.error("E133", "this is not the name of a `let`", word.span)
            raise Bad
        return s.Path((word,), word.span)

    def texts(self, node: Node) -> s.Value:
        """A text or a list of texts."""
        if isinstance(node.value, tuple):
            return s.List(tuple(self.text(each) for each in node.value), node.span)
        return self.text(node)

    def suites(self, node: Node) -> s.Braces:
        """Lists of tasks by capability."""
        items = (
            s.Entry(s.Word(key.value, key.inside), self.texts(of), joined(key, of))  # type: ignore[arg-type]
            for key, of in self.object(node, "lists of tasks").values()
        )
        return s.Braces(tuple(items), node.span)

    def value(self, node: Node) -> s.Value:
        """A value; its strings are parsed like a spec."""
        match node.value:
            case Numeral():
                return self._number(node)
            case str():
                return self._said(node)
            case bool():
                word = s.Word("true" if node.value else "false", node.span)
                return s.Path((word,), node.span)
            case tuple():
                items = tuple(self.each(node.value, self._element))
                return s.List(items, node.span)
            case dict():
                items = tuple(self.each(self.object(node, "entries").values(), self._entry))
                return s.Braces(items, node.span)
        self.wrong(node, "a value", "remove it if there is none")

    def _number(self, node: Node) -> s.Number:
        if node.value.startswith("-"):
            self.error(
                "E108",
                "numbers in a spec are never negative",
                node,
                help="remove it for the default",
            )
            raise Bad
        return number(node.value, None, node.span, node.span, self.report)

    def _element(self, node: Node) -> s.Operand | s.Range:
        """An entry of a list: a constant value, or a range."""
        if type(node.value) is str and _RANGE.fullmatch(node.value):
            (found,) = self._parsed(node, f"{_VALUE}[", "]")
            if isinstance(found, s.Assign) and isinstance(found.value, s.List):
                return found.value.items[0]
        return self._operand(node)

    def _operand(self, node: Node) -> s.Operand:
        """A value that does not change over time, as in lists."""
        value = self.value(node)
        if not isinstance(value, s.Operand):
            self.error("E133", "this must be one constant value", node)
            raise Bad
        return value

    def _entry(self, pair: tuple[Node, Node]) -> s.Entry:
        """`name value` of a mixture or a placement."""
        key, node = pair
        value = self._operand(node)
        if not (
            isinstance(value, s.Number | s.Text | s.List)
            or (isinstance(value, s.Path) and len(value.words) == 1)
        ):
            self.error("E133", "this must be a number with its unit, or the name of a `let`", node)
            raise Bad
        return s.Entry(self._reference(key), value, joined(key, node))

    def _reference(self, key: Node) -> s.Word | s.Path | s.Indexed:
        """The key of a mixture: a name, `drafts.pairs` or `preferences[1..round]`."""
        if _NAME.fullmatch(key.value):
            return s.Word(key.value, key.inside)
        reference = self._said(key)
        if not isinstance(reference, s.Path | s.Indexed):
            self.error("E133", "this is not the name of a source", key)
            raise Bad
        return reference

    def path(self, key: Node) -> s.Path:
        """`pretrain.lr`."""
        if not _PATH.fullmatch(key.value):
            self.error(
                "E133",
                "this is not a path",
                key,
                help="write names with points between them: `pretrain.lr`",
            )
            raise Bad
        words, start = [], key.inside.start
        for name in key.value.split("."):
            words.append(s.Word(name, Span(self.source, start, start + len(name))))
            start += len(name) + 1
        return s.Path(tuple(words), key.inside)

    def figure(self, key: Node) -> tuple[s.Path, s.Number | s.Path | None]:
        """`pretrain.lr at 2000 steps`: a figure, and the point that it is claimed for."""
        if _PATH.fullmatch(key.value):
            return self.path(key), None
        items = self._parsed(key, "", " = 0")
        if len(items) != 1 or not isinstance(items[0], s.Assign):
            self.error(
                "E133",
                "this is not a figure",
                key,
                help="write `pretrain.steps`, or `pretrain.lr at 2000 steps`",
            )
            raise Bad
        return items[0].path, items[0].at

    def amount(self, node: Node) -> s.Number | s.Path:
        """A number, or the name of a `let`."""
        value = self.value(node)
        if not (
            isinstance(value, s.Number) or (isinstance(value, s.Path) and len(value.words) == 1)
        ):
            self.error("E133", "this must be a number, or the name of a `let`", node)
            raise Bad
        return value

    def origin(self, key: Node, of: Node) -> s.Origin:
        """`"cite": "Table 3"` or `"assumed": "why"`."""
        return s.Origin(key.value == "assumed", self.text(of), joined(key, of))

    def statement(self, node: Node, prefix: str, wanted: type[Of], example: str) -> Of:
        """The statement in a string, which omits the word that all such statements begin with."""
        if type(node.value) is not str:
            self.wrong(node, f"a string such as {example}")
        items = self._parsed(node, prefix)
        if len(items) != 1 or not isinstance(items[0], wanted):
            self.error("E133", "this does not belong here", node, help=f"write `{example}`")
            raise Bad
        return items[0]

    def _said(self, node: Node) -> s.Value:
        """The value in a string."""
        content = node.value
        if _NAME.fullmatch(content):
            return s.Path((s.Word(content, node.inside),), node.inside)
        if not content.strip():
            self.error("E133", "this string is empty", node, help="remove it, or write a value")
            raise Bad
        found = self._parsed(node, _VALUE)
        item = found[0] if len(found) == 1 else None
        if not isinstance(item, s.Assign) or item.claim or item.origin:
            self.error(
                "E133",
                "this is more than one value",
                node,
                help="write a source in `sources`, a tolerance in `within`, and other attributes "
                "separately",
            )
            raise Bad
        return item.value

    def _parsed(self, node: Node, prefix: str, suffix: str = "") -> tuple[s.Item, ...]:
        """The statements in a string, with places in the JSON.

        Raises: Bad: it cannot be read.
        """
        own = Report()
        items = parse(Source(self.source.name, prefix + node.value + suffix), own)
        plain = node.span.end - node.span.start == len(node.value) + 2
        table = [] if plain else node.offsets()

        def place(offset: int) -> int:
            at = min(max(offset - len(prefix), 0), len(node.value))
            return node.span.start + 1 + at if plain else table[at]

        for finding in own.diagnostics:
            self.report.add(
                finding.code,
                finding.message,
                finding.span and _moved(finding.span, self.source, place),
                label=finding.label,
                help=finding.help,
                notes=[(_moved(at, self.source, place), message) for at, message in finding.notes],
            )
        if own.errors:
            raise Bad
        return _moved(items, self.source, place)


def _moved(node: Any, source: Source, place: Callable[[int], int]) -> Any:
    """A part of a syntax tree with its places changed."""
    if isinstance(node, Span):
        return Span(source, place(node.start), place(node.end))
    if isinstance(node, tuple):
        parts = [_moved(part, source, place) for part in node]
        return type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    return node


def several(of: Node) -> tuple[Node, ...]:
    """The values of an array, or a single value as an array of one."""
    return of.value if isinstance(of.value, tuple) else (of,)


def joined(first: Node, last: Node) -> Span:
    """The span from one node to another."""
    return Span(first.span.source, first.span.start, last.span.end)


def as_entry(item: s.Item) -> s.Item:
    """`on = [docs]` as the entry `on [docs]`, which groups without sources have."""
    if isinstance(item, s.Assign) and item.origin is None:
        value: Any = item.value
        if isinstance(value, s.Number | s.List) or (
            isinstance(value, s.Path) and len(value.words) == 1
        ):
            return s.Entry(item.path.words[0], value, item.span)
    return item
