"""Quick fixes: applies what a finding's rule or help says."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from lsprotocol import types

from ..spec import syntax as s
from ..spec.findings import codes
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.quantity import UNITS, plain
from ..spec.text.format import format_text
from .diagnostics import one
from .places import place
from .positions import Lines
from .project import Analysis

_DID_YOU_MEAN = re.compile(r"did you mean `([^`]+)`\?")
_QUOTED = re.compile(r"`([^`]+)`")
_WRITE = re.compile(r"^write `([^`…]+)`$")
_ATTRIBUTE = re.compile(r"[a-z_]+ = [^…{}]+")
_NEIGHBOURS = re.compile(r"the nearest are (\d[\d ]*)(?: \([^)]*\))? and (\d[\d ]*)")


def layout(analysis: Analysis, path: Path) -> list[types.TextEdit]:
    """The edit that formats a file; none if it is formatted already, or cannot be parsed."""
    source = analysis.source(path)
    text = format_text(source, Report())
    if text is None or text == source.text:
        return []
    whole = types.Range(types.Position(0, 0), types.Position(source.text.count("\n") + 1, 0))
    return [types.TextEdit(whole, text)]


def actions(analysis: Analysis, path: Path, start: int, end: int) -> list[types.CodeAction]:
    """The fixes of the findings that overlap a range of a file."""
    offered: list[types.CodeAction] = []
    source = analysis.source(path)
    for finding in analysis.diagnostics:
        span = finding.span
        if span is None or span.source is not source or span.end < start or span.start > end:
            continue
        fixes = _Fixes(analysis, path, finding)
        for title, edits, preferred in fixes.all():
            offered.append(
                types.CodeAction(
                    title,
                    kind=types.CodeActionKind.QuickFix,
                    diagnostics=[one(finding, path, analysis)],
                    is_preferred=preferred or None,
                    edit=types.WorkspaceEdit(changes={path.as_uri(): edits}),
                )
            )
    return offered


class _Fixes:
    def __init__(self, analysis: Analysis, path: Path, finding: Diagnostic) -> None:
        assert finding.span
        self.analysis = analysis
        self.path = path
        self.finding = finding
        self.lines: Lines = analysis.lines(path)
        self.text = analysis.source(path).text
        self.start, self.end = finding.span.start, finding.span.end

    def all(self) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        """Title, edits, and whether the fix is certainly what is meant."""
        code, help = self.finding.code, self.finding.help
        meant = _DID_YOU_MEAN.search(help)
        if meant:
            yield from self._named(meant[1])
        elif code == "E205":
            yield from self._units()
        elif code == "E111" and self.text[self.start : self.end].endswith("K"):
            yield from self._suffixes()
        elif code == "E214":
            yield from self._mixture()
        elif code == "E102":
            edit = self._insert(self.end, '"')
            yield 'Close the text with `"`', [edit], True
        elif neighbours := _NEIGHBOURS.search(help):
            yield from self._neighbours(neighbours[1], neighbours[2])
        elif write := _WRITE.match(help):
            yield from self._written(write[1])
        if codes.severity(code) != "error":
            yield from self._allow(code)

    def _named(self, meant: str) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        """Replaces the mistyped name, which is the marked text or part of it."""
        written = self.text[self.start : self.end]
        wrong = next((q for q in _QUOTED.findall(self.finding.message) if q in written), None)
        if wrong is None or len(wrong) == len(written):
            start, end = self.start, self.end
        else:
            match = re.search(rf"(?<![\w.]){re.escape(wrong)}(?![\w])", written)
            if not match:
                return
            start, end = self.start + match.start(), self.start + match.end()
        if re.fullmatch(r"[\w.\[\]]+", self.text[start:end]):
            yield f"Replace with `{meant}`", [self._replace(start, end, meant)], True

    def _units(self) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        units = [u for u in _QUOTED.findall(self.finding.label) if u in UNITS.values() or u in "%x"]
        for unit in units:
            gap = "" if unit in "%x" else " "
            edit = self._insert(self.end, gap + unit)
            yield f"Write it in {unit}", [edit], len(units) == 1

    def _suffixes(self) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        for suffix, meaning in (("k", "1000"), ("Ki", "1024")):
            edit = self._replace(self.end - 1, self.end, suffix)
            yield f"Write `{suffix}`: times {meaning}", [edit], False

    def _mixture(self) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        """Changes one share so that all add up to 100 %, or writes all as weights."""
        here = place(self.analysis.items(self.path), self.start)
        braces = (
            next((n for n in reversed(here.nodes) if isinstance(n, s.Braces)), None)
            if here
            else None
        )
        shares = [
            item
            for item in (braces.items if braces else ())
            if isinstance(item, s.Entry) and isinstance(item.value, s.Number)
        ]
        numbers = [item.value for item in shares if isinstance(item.value, s.Number)]
        total = sum((number.value for number in numbers), Fraction(0))
        for item, number in zip(shares, numbers, strict=True):
            share = number.value + 1 - total
            if 0 < share < 1:
                new = f"{plain(share * 100)}%"
                edit = self._replace(number.span.start, number.span.end, new)
                yield f"Set `{item.word.name}` to {new}", [edit], False
        if numbers:
            edits = [
                self._replace(of.span.start, of.span.end, of.text.removesuffix("%"))
                for of in numbers
            ]
            yield "Write plain weights, which are normalized", edits, False

    def _neighbours(self, low: str, high: str) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        """Replaces a number that is not whole with a neighbouring one; keeps its unit."""
        number = re.fullmatch(
            r"[0-9][0-9_.]*(?:[eE][+-]?[0-9]+)?[A-Za-z]*((?:\s+[a-z]+)?)",
            self.text[self.start : self.end],
        )
        if number is None:
            return
        for near in (low, high):
            digits = near.strip().replace(" ", "_")
            if digits != "0":
                edit = self._replace(self.start, self.end, digits + number[1])
                yield f"Write {digits}{number[1]}", [edit], False

    def _written(self, text: str) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        """Writes what the help says: adds an attribute to the block, or replaces the old one."""
        here = place(self.analysis.items(self.path), self.start)
        name = text.partition(" = ")[0]
        if _ATTRIBUTE.fullmatch(text) and here and isinstance(here.item, s.Block):
            if self.end <= here.item.head.end:
                yield f"Add `{text}`", [self._into(here.item, text)], False
            return
        item = here.item if here else None
        if isinstance(item, s.Assign) and item.path.name == name and _ATTRIBUTE.fullmatch(text):
            edit = self._replace(item.span.start, item.span.end, text)
            yield f"Write `{text}`", [edit], False

    def _allow(self, code: str) -> Iterator[tuple[str, list[types.TextEdit], bool]]:
        here = place(self.analysis.items(self.path), self.start)
        block = here.blocks[-1] if here and here.blocks else None
        if block:
            edit = self._into(block, f'allow {code} "why this is meant"')
            yield f"Allow {code} here, with a reason", [edit], False

    def _into(self, block: s.Block, statement: str) -> types.TextEdit:
        """Inserts a statement at the beginning of a block, in the block's layout."""
        brace = self.text.index("{", block.head.end)
        line_end = self.text.find("\n", brace, block.span.end)
        if line_end < 0:
            separator = ", " if block.items else " "
            return self._insert(brace + 1, f" {statement}{separator.rstrip()}")
        first = block.items[0].span.start if block.items else block.span.start
        start = self.text.rfind("\n", 0, first) + 1
        indent = self.text[start:first] if block.items else "  "
        if indent.strip():
            return self._insert(brace + 1, f" {statement},")
        return self._insert(brace + 1, f"\n{indent}{statement}")

    def _replace(self, start: int, end: int, text: str) -> types.TextEdit:
        return types.TextEdit(self.lines.range(start, end), text)

    def _insert(self, offset: int, text: str) -> types.TextEdit:
        return types.TextEdit(self.lines.range(offset, offset), text)
