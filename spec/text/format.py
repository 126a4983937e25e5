"""The canonical layout of a spec's text.

The author chooses where lines break inside braces and lists, and sets blank lines, at most one in a
row. The formatter does the rest: indentation, spaces, commas, the columns of `=` and of comments,
and lines that are too long. Comments stay where they are; numbers and texts stay as written.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..findings.diagnostics import Report
from ..source import Source
from .keywords import CONTINUES
from .parse import parse, tokens

WIDTH = 100
INDENT = 2
CONTINUED = 4
"""The indentation of a continuation line if its statement has no value to align with."""
_OPEN = {"{": "}", "[": "]", "(": ")"}
_JOINS = ("EQUAL", "THEN", "__ANON_0")
_COMMENT = re.compile(r"#[^\n]*")


class FormatError(Exception):
    """Formatting would change the meaning of the text: a bug in the formatter."""


def format_text(source: Source, report: Report) -> str | None:
    """The text in its canonical layout; None, with the findings, if it cannot be parsed.

    Raises: FormatError: the layout does not parse to what the text did; never seen.
    """
    before = report.failures
    items = parse(source, report)
    if report.failures > before:
        return None
    read = _read(source.text)
    forced: set[int] = set()
    while True:
        lines = _Layout(read, forced).lines
        longer = set(_too_long(lines, read)) - forced
        if not longer:
            break
        forced |= longer
    text = _written(lines)
    again = Report()
    same = shape(items) == shape(parse(Source(source.name, text), again))
    if again.errors or not same or _comments(source.text) != _comments(text):
        raise FormatError
    return text


def shape(node: Any) -> Any:
    """A syntax tree without its places: equal for texts with the same meaning."""
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        fields: Any = node
        return (
            type(node).__name__,
            *(shape(getattr(node, name)) for name in fields._fields if name != "span"),
        )
    if isinstance(node, tuple | list):
        return [shape(item) for item in node]
    return node


def _comments(text: str) -> list[str]:
    quoted = re.compile(r'"(?:[^"\\\n]|\\.)*"|(#[^\n]*)')
    return [match[1].rstrip() for match in quoted.finditer(text) if match[1]]


class _Token:
    """A token that is not a separator, and what is between it and the one before.

    Attributes:
        comments: each with whether it has a line of its own, and whether a blank line precedes it.
        newline: a line begins between the tokens.
        blank: a blank line is right before the token.
        separated: a new line or a comma separates statements or elements here.
        space: anything at all is in between.
        match: of a bracket, the number of its partner.
    """

    __slots__ = ("blank", "comments", "kind", "match", "newline", "separated", "space", "text")

    def __init__(self, kind: str, text: str, gap: str, separated: bool) -> None:
        self.kind = kind
        self.text = text
        self.separated = separated
        self.space = bool(gap)
        self.newline = "\n" in gap
        self.comments: list[tuple[str, bool, bool]] = []
        self.match = -1
        own, blank = False, False
        for number, line in enumerate(gap.split("\n")):
            own = number > 0
            read = _COMMENT.search(line)
            if read:
                self.comments.append((read[0].rstrip(), own, blank))
                blank = False
            elif own and not line.strip(" \t\f\r,") and number < gap.count("\n"):
                blank = True
        self.blank = blank


def _read(text: str) -> list[_Token]:
    """The tokens, with one for the end."""
    text = text if text.endswith("\n") else text + "\n"
    read: list[_Token] = []
    opened: list[int] = []
    end, separated = 0, False
    for token in tokens(text):
        if token.kind in ("_NL", "COMMA"):
            separated = not read or read[-1].kind not in _JOINS
            continue
        start = token.start
        read.append(_Token(token.kind, str(token), text[end:start], separated))
        if token in _OPEN:
            opened.append(len(read) - 1)
        elif token in _OPEN.values():
            read[-1].match = opened.pop()
            read[read[-1].match].match = len(read) - 1
        end, separated = start + len(token), False
    read.append(_Token("END", "", text[end:], True))
    return read


class _Line:
    """
    Attributes:
        base: the line that it is indented from; None at the left margin.
        below: it continues a statement of `base` and is aligned with its value.
        text: without indentation and comment.
        column: of the first `=`, or of the brace of a block; -1 if there is none.
        sort: what `column` refers to: lines of the same sort are aligned.
        items: how many statements it holds.
        opens: a bracket on it is spread over the lines that follow.
        value: the column of the value; -1 if there is none.
        tokens: the numbers of its tokens.
    """

    def __init__(self, base: "_Line | None", below: bool, blank: bool) -> None:
        self.base = base
        self.below = below
        self.blank = blank
        self.text = ""
        self.comment = ""
        self.column = -1
        self.sort = ""
        self.value = -1
        self.items = 0
        self.opens = False
        self.tokens: list[int] = []

    @property
    def indent(self) -> int:
        if self.base is None:
            return 0
        if not self.below:
            return self.base.indent + INDENT
        return self.base.indent + (self.base.value if self.base.value >= 0 else CONTINUED)

    @property
    def width(self) -> int:
        return self.indent + len(self.text)


class _Layout:
    """Puts tokens into lines; brackets in `forced` are spread, and lines break before a `then`."""

    def __init__(self, found: Sequence[_Token], forced: set[int]) -> None:
        self.found = found
        self.forced = forced
        self.spread: dict[int, bool] = {}
        self.lines: list[_Line] = []
        self.line: _Line | None = None
        # For every open bracket: its number, whether it is spread over lines, and the line that
        # its contents are indented from; in `heads`, the line that the current statement begins in.
        self.open: list[tuple[int, bool, _Line | None]] = [(-1, True, None)]
        self.heads: list[_Line | None] = [None]
        for number, token in enumerate(found):
            self._put(number, token)
        _align(self.lines)

    def _spread(self, number: int) -> bool:
        """Whether a bracket's contents are on their own lines."""
        if number not in self.spread:
            self.spread[number] = number in self.forced or self._broken(number)
        return self.spread[number]

    def _broken(self, number: int) -> bool:
        """Whether the author breaks lines in a bracket."""
        token = self.found[number]
        if token.text == "(" or (token.match == number + 1 and not self.found[number + 1].comments):
            return False
        inside = number + 1
        while inside <= token.match:
            here = self.found[inside]
            joined = self.found[inside - 1].kind in _JOINS
            if here.comments or (here.newline and not joined):
                return True
            if here.match > inside:
                if self._spread(inside):
                    return True
                inside = here.match
            inside += 1
        return False

    def _put(self, number: int, token: _Token) -> None:
        opener, spread, outer = self.open[-1]
        closing = token.text in _OPEN.values() and token.match == opener
        braces = opener < 0 or self.found[opener].text == "{"
        first = number == opener + 1
        begins = first or token.separated
        for text, own, blank in token.comments:
            if not own and self.line is not None:
                self.line.comment = text
                continue
            inside = begins or closing or token.kind == "END"
            base, below = (outer, False) if inside else (self.heads[-1], True)
            line = _Line(base, below, blank and not self._begins_block(opener))
            line.comment = text
            self.lines.append(line)
        if token.kind == "END":
            return
        previous = self.found[number - 1] if number else None
        kept = not braces or not (spread and (token.newline or opener in self.forced))
        # Without the comma this would continue the statement before.
        kept |= token.text in ("->", *CONTINUES)
        comma = token.separated and number > 0 and not first and not closing and kept
        if (closing and not braces and spread and not first and self.line) or comma:
            self._comma()
        continued = (
            token.newline
            and not begins
            and not closing
            and (bool(token.comments) or (previous is not None and previous.kind not in _JOINS))
        )
        if closing:
            self.open.pop()
            self.heads.pop()
            if spread:
                self._begin(outer, False, False, closes=True)
        elif spread and begins and (first or token.newline or opener in self.forced):
            blank = token.blank and (bool(token.comments) or not self._begins_block(opener))
            self._begin(outer, False, blank)
            self.heads[-1] = self.line
        elif continued or (number in self.forced and token.kind == "THEN"):
            self._begin(self.heads[-1], True, False)
        self._write(number, token, previous, inside=not spread and not closing)
        if begins and spread and not closing:
            assert self.line
            self.line.items += 1
        if token.text in _OPEN and token.match > number:
            spread = self._spread(number)
            assert self.line
            self.line.opens |= spread
            # A bracket on one line continues the same statement.
            self.open.append((number, spread, self.line if spread else outer))
            self.heads.append(self.line if spread else self.heads[-1])

    def _begins_block(self, opener: int) -> bool:
        return not self.lines or (
            bool(self.lines[-1].tokens) and self.lines[-1].tokens[-1] == opener
        )

    def _comma(self) -> None:
        assert self.line
        self.line.text += ","

    def _begin(self, base: _Line | None, below: bool, blank: bool, closes: bool = False) -> None:
        line = _Line(base, below, blank)
        if closes and base is not None:
            line.base, line.below = base.base, base.below
        self.line = line
        self.lines.append(line)

    def _write(self, number: int, token: _Token, previous: _Token | None, *, inside: bool) -> None:
        line = self.line
        assert line
        if line.text:
            line.text += _space(previous, token)
        if line.column < 0 and not line.below and not inside:
            if token.kind == "EQUAL":
                line.value = len(line.text) + 2
            if token.kind == "EQUAL" or (token.text == "{" and len(line.tokens) > 1):
                line.column = len(line.text)
                line.sort = "=" if token.kind == "EQUAL" else line.text.split()[0]
        line.text += token.text
        line.tokens.append(number)


def _space(previous: _Token | None, token: _Token) -> str:
    before, here = previous.text if previous else "", token.text
    if (before, here) == ("{", "}"):
        return ""
    if before in ("[", "(", ".", "..") or here in ("]", ")", "(", ".", "..", ":"):
        return "" if before != "," else " "
    if here == "[" and previous and previous.kind not in ("EQUAL", "__ANON_0"):
        # `data[1]` is an element, `on [data]` an entry.
        return " " if token.space else ""
    return " "


def _align(lines: Sequence[_Line]) -> None:
    """Aligns the `=` of neighbouring statements, and the braces of short blocks."""
    for group in _groups(lines):
        column = max(line.column for line in group)
        for line in group:
            pad = column - line.column
            line.text = line.text[: line.column] + " " * pad + line.text[line.column :]
            line.column += pad
            if line.value >= 0:
                line.value += pad


def _groups(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Neighbouring one-statement lines of the same sort, without a blank line or a spread bracket
    between them."""
    open_groups: dict[int, list[_Line]] = {}
    for line in lines:
        if line.below:
            head = line.base
            if line.opens and head and (group := open_groups.get(id(head.base))):
                yield group.copy()
                group.clear()
            continue
        group = open_groups.setdefault(id(line.base), [])
        block = line.sort not in ("", "=")
        if group and (line.blank or (line.sort and line.sort != group[-1].sort)):
            yield group.copy()
            group.clear()
        if line.column >= 0 and line.items == 1 and not (block and line.opens):
            group.append(line)
        if line.opens and group:
            yield group.copy()
            group.clear()
    yield from (group for group in open_groups.values() if group)


def _too_long(lines: Sequence[_Line], read: Sequence[_Token]) -> Iterator[int]:
    """Where a line that is too long breaks: before each `then`, else in its first bracket."""
    for line in lines:
        if line.width <= WIDTH or not line.tokens:
            continue
        depth, thens, brackets = 0, [], []
        inside = set(line.tokens)
        for position, number in enumerate(line.tokens):
            token = read[number]
            if token.kind == "THEN" and depth == 0 and position:
                thens.append(number)
            if token.text in ("{", "[") and token.match in inside and depth == 0:
                brackets.append(number)
            depth += (token.text in _OPEN) - (token.text in _OPEN.values())
        if thens:
            yield from thens
        else:
            yield from brackets[-1:]


def _written(lines: Sequence[_Line]) -> str:
    out: list[str] = []
    for run in _runs(lines):
        column = max((line.width for line in run if line.comment and line.text), default=0)
        for line in run:
            if line.blank:
                out.append("")
            text = " " * line.indent + line.text
            if line.comment:
                text = (
                    text.ljust(column) + "  " + line.comment if line.text else text + line.comment
                )
            out.append(text.rstrip())
    return "".join(f"{line}\n" for line in out)


def _runs(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Neighbouring lines that end with a comment; every other line on its own."""
    run: list[_Line] = []
    for line in lines:
        if run and (line.blank or not (line.comment and line.text and run[-1].text)):
            yield run
            run = []
        run.append(line)
        if not (line.comment and line.text):
            yield run
            run = []
    if run:
        yield run
