"""Converts syntax trees to text, in the canonical layout, without comments."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import Report
from ..source import Source, Span
from .format import format_text
from .parse import parse

MOST_ON_A_LINE = 5
WIDTH = 88
"""A block of few attributes is written on one line if that is no longer than this."""


class Unsayable(Exception):
    """A statement that no text can express, and its place."""

    def __init__(self, span: Span) -> None:
        super().__init__(repr(span))
        self.span = span


def text(items: Sequence[s.Item]) -> str:
    """The text of the statements.

    Raises: Unsayable: a text cannot express one of them, as if JSON names a source `let`.
    """
    parts: list[str] = []
    before: str | None = None
    for item in items:
        lines = _lines(item)
        # Short statements of the same kind are grouped.
        alike = item.keyword.name if isinstance(item, s.Block) else type(item).__name__
        kind = alike if len(lines) == 1 else None
        if parts and (kind is None or kind != before):
            parts.append("")
        parts += lines
        before = kind
    report = Report()
    laid_out = format_text(Source("<text>", "\n".join(parts) + "\n"), report)
    if laid_out is None:
        raise Unsayable(next((item.span for item in items if not _sayable(item)), items[0].span))
    return laid_out


def _sayable(item: s.Item) -> bool:
    report = Report()
    parse(Source("<text>", "\n".join(_lines(item)) + "\n"), report)
    return not report.errors


def quoted(value: str) -> str:
    """A text in quotes."""
    return json.dumps(value, ensure_ascii=False)


def _lines(item: s.Item) -> list[str]:
    if not isinstance(item, s.Block):
        return [shown(item)]
    head = " ".join([item.keyword.name, *map(shown, item.labels)])
    head += f": {item.kind.name}" if item.kind else ""
    inner = [_lines(lines) for lines in item.items]
    if not inner:
        return [f"{head} {{ }}"]
    short = len(inner) <= MOST_ON_A_LINE and all(len(lines) == 1 for lines in inner)
    line = f"{head} {{ {', '.join(lines[0] for lines in inner)} }}"
    if short and len(line) <= WIDTH:
        return [line]
    return [f"{head} {{", *_body(item.items, inner), "}"]


def _body(items: Iterable[s.Item], inner: Iterable[list[str]]) -> Iterator[str]:
    """The lines of a block; stages in rounds are separated by blank lines."""
    for number, (item, lines) in enumerate(zip(items, inner, strict=True)):
        if number and isinstance(item, s.Block) and item.kind:
            yield ""
        yield from (f"  {line}" if line else "" for line in lines)


@singledispatch
def shown(node: Any) -> str:
    """A value or a statement as written in a spec, on one line."""
    raise TypeError(type(node).__name__)


@shown.register
def _(node: s.Word) -> str:
    return node.name


@shown.register
def _(node: s.Text) -> str:
    return quoted(node.value)


@shown.register
def _(node: s.Number) -> str:
    return node.text


@shown.register
def _(node: s.Path) -> str:
    return node.name


@shown.register
def _(node: s.Range) -> str:
    return node.name


@shown.register
def _(node: s.List) -> str:
    return f"[{', '.join(map(shown, node.items))}]"


@shown.register
def _(node: s.Indexed) -> str:
    return f"{node.path.name}{shown(node.among)}"


@shown.register
def _(node: s.Either) -> str:
    return f"{shown(node.first)} or {shown(node.second)}"


@shown.register
def _(node: s.Braces) -> str:
    return f"{{ {', '.join(map(shown, node.items))} }}" if node.items else "{ }"


@shown.register
def _(node: s.Tagged) -> str:
    return f"{node.tag.name} {shown(node.braces)}"


@shown.register
def _(node: s.Scaled) -> str:
    return f"{node.base.name} with {shown(node.factors)}"


@shown.register
def _(node: s.Counted) -> str:
    return f"{shown(node.number)} of {shown(node.what)}"


@shown.register
def _(node: s.Sized) -> str:
    return f"{node.what.name} {shown(node.size)}"


@shown.register
def _(node: s.Periodic) -> str:
    over = f" over {shown(node.over)}" if node.over else ""
    return f"{node.what.name} every {shown(node.every)}{over}"


@shown.register
def _(node: s.Bound) -> str:
    return f" {'for' if node.relative else 'until'} {shown(node.quantity)}"


@shown.register
def _(node: s.Hold) -> str:
    return shown(node.value) + (shown(node.bound) if node.bound else "")


@shown.register
def _(node: s.Ramp) -> str:
    start = f"{shown(node.start)} " if node.start else ""
    shape = f" {node.shape}" if node.shape != "linear" else ""
    shape += f" in levels of {shown(node.levels)}" if node.levels else ""
    over = f" over {shown(node.over)}" if node.over else ""
    return f"{start}-> {shown(node.end)}{shape}{over}" + (shown(node.bound) if node.bound else "")


@shown.register
def _(node: s.Repeat) -> str:
    return f"repeat {shown(node.times)} {{ {' then '.join(map(shown, node.segments))} }}"


@shown.register
def _(node: s.Schedule) -> str:
    return " then ".join(map(shown, node.segments))


@shown.register
def _(node: s.Origin) -> str:
    return f"{'assumed' if node.assumed else 'cite'} {shown(node.text)}"


@shown.register
def _(node: s.Assign) -> str:
    more = "".join(f" {shown(part)}" for part in (node.claim, node.origin) if part)
    return f"{figure(node)} = {shown(node.value)}{more}"


def figure(node: s.Assign) -> str:
    """The left side of an assignment: for a claim, with the point that it is made for."""
    return node.path.name + (f" at {shown(node.at)}" if node.at else "")


@shown.register
def _(node: s.Claim) -> str:
    return f"within {shown(node.within)}" + (f" {shown(node.reason)}" if node.reason else "")


@shown.register
def _(node: s.Reason) -> str:
    return f"{'contradicted' if node.contradicted else 'because'} {shown(node.text)}"


@shown.register
def _(node: s.Entry) -> str:
    return f"{shown(node.word)} {shown(node.value)}"


@shown.register
def _(node: s.Every) -> str:
    return f"{node.word.name} every {shown(node.every)}"


@shown.register
def _(node: s.Keep) -> str:
    return f"{node.word.name} {node.how}" + (f" {shown(node.amount)}" if node.amount else "")


@shown.register
def _(node: s.Flag) -> str:
    return node.word.name


@shown.register
def _(node: s.Require) -> str:
    argument = f"({node.argument.name})" if node.argument else ""
    of = f" of {node.of.name}" if node.of else ""
    return f"require {node.measure.name}{argument} {node.op} {shown(node.value)}{of}"


@shown.register
def _(node: s.Otherwise) -> str:
    return f"otherwise extend {shown(node.length)} at most {shown(node.times)}"


@shown.register
def _(node: s.Filter) -> str:
    share = f" {shown(node.share)}" if node.share else ""
    return f"{node.word.name}{share} where {node.what.name} {node.op} {shown(node.value)}"


@shown.register
def _(node: s.Alike) -> str:
    return f"{node.word.name} {node.what.name} {node.op} {shown(node.value)}"


@shown.register
def _(node: s.Allow) -> str:
    return f"allow {node.code.name} {shown(node.reason)}"


@shown.register
def _(node: s.Open) -> str:
    return f"open {node.attribute.name} {shown(node.reason)}"


@shown.register
def _(node: s.Use) -> str:
    return f"use {shown(node.file)}"


@shown.register
def _(node: s.Let) -> str:
    return f"let {node.word.name} = {shown(node.value)}"


@shown.register
def _(node: s.Block) -> str:
    """A block within braces, such as `web { math 3 }`."""
    head = " ".join([node.keyword.name, *map(shown, node.labels)])
    return f"{head} {shown(s.Braces(node.items, node.span))}"
