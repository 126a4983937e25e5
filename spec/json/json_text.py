"""JSON with places: strict reading with one clear error, and formatting."""

import json
import re
from json.encoder import encode_basestring
from typing import Any, NamedTuple, NoReturn, TypeAlias

from ..findings.diagnostics import Report
from ..source import Source, Span
from ..text.parse import MAX_NESTING

WIDTH = 100

_BLANKS = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_WORD = re.compile(r"[^\s,:{}\[\]\"]+")
_HALF = re.compile("[\ud800-\udfff]")
_ESCAPES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.|.", re.DOTALL)
_CONSTANTS = {"true": True, "false": False, "null": None}
_HELP = {
    "NaN": "numbers in a spec are finite",
    "Infinity": "numbers in a spec are finite",
    "-Infinity": "numbers in a spec are finite",
    "True": "write true",
    "False": "write false",
    "None": "write null, or remove it",
}


class Numeral(str):
    """A number as written."""


class Node(NamedTuple):
    """A value and its place.

    `value` is a `str`, `Numeral`, `bool`, None, a tuple of nodes, or an `Object`.
    """

    value: Any
    span: Span

    @property
    def inside(self) -> Span:
        """The place of a string without its quotes."""
        return Span(self.span.source, self.span.start + 1, self.span.end - 1)

    @property
    def kind(self) -> str:
        """The type of the value, in words."""
        if self.value is None:
            return "null"
        kinds = {Numeral: "a number", str: "a string", bool: "a truth value", tuple: "an array"}
        return kinds.get(type(self.value), "an object")

    def offsets(self) -> list[int]:
        """The source offset of every character of a string, and of its end."""
        raw = self.span.source.text[self.span.start + 1 : self.span.end - 1]
        starts = [self.span.start + 1 + match.start() for match in _ESCAPES.finditer(raw)]
        return [*starts, self.span.end - 1]


Object: TypeAlias = dict[str, tuple[Node, Node]]
"""Key → the key's node and the value."""


class _Wrong(Exception):
    def __init__(self, message: str, start: int, end: int, help: str = "", code: str = "E131"):
        super().__init__(message)
        self.code, self.message, self.start, self.end, self.help = code, message, start, end, help


def read(source: Source, report: Report) -> Node | None:
    """The value in a source; None, with the reason in the report, if it is not JSON.

    If a key is given twice, the first value counts, and the report says so.
    """
    reader = _Reader(source, report)
    try:
        start = reader.blanks(0)
        if start == len(source.text):
            raise _Wrong("this file is empty", start, start, "write a spec: { … }")
        node, end = reader.value(start, 0)
        end = reader.blanks(end)
        if end < len(source.text):
            raise _Wrong("the JSON ends before this", end, end + 1, reader.after(end))
        return node
    except _Wrong as wrong:
        # A place can be at the end of the last line, not after it.
        start = min(wrong.start, max(len(source.text.rstrip()) - 1, 0))
        span = Span(source, start, min(max(wrong.end, start + 1), len(source.text)))
        report.add(wrong.code, wrong.message, span, help=wrong.help)
        return None


class _Reader:
    def __init__(self, source: Source, report: Report) -> None:
        self.source = source
        self.text = source.text
        self.report = report

    def blanks(self, at: int) -> int:
        """The next character that is not blank."""
        match = _BLANKS.match(self.text, at)
        assert match
        return match.end()

    def value(self, at: int, depth: int) -> tuple[Node, int]:
        """The value that begins at an offset, and where it ends."""
        sign = self.text[at : at + 1]
        if sign == '"':
            return self._string(at)
        if sign and sign in "{[":
            if depth == MAX_NESTING:
                raise _Wrong(
                    "values are nested too deep here",
                    at,
                    at + 1,
                    f"nest at most {MAX_NESTING} deep",
                    "E103",
                )
            return (self._object if sign == "{" else self._array)(at, depth + 1)
        word = _WORD.match(self.text, at)
        if word is None:
            self._unexpected(at, "a value")
        if _NUMBER.fullmatch(word[0]):
            return Node(Numeral(word[0]), Span(self.source, at, word.end())), word.end()
        if word[0] in _CONSTANTS:
            return Node(_CONSTANTS[word[0]], Span(self.source, at, word.end())), word.end()
        shown = word[0] if len(word[0]) < 40 else word[0][:40] + "…"
        help = _HELP.get(word[0]) or self.after(at) or "strings are written in double quotes"
        raise _Wrong(f"`{shown}` is not a JSON value", at, word.end(), help)

    def after(self, at: int) -> str:
        """How to fix an unexpected character."""
        if self.text.startswith(("//", "/*", "#"), at):
            return "JSON has no comments: remove them, or write the spec as text"
        return "strings are written in double quotes" if self.text.startswith("'", at) else ""

    def _unexpected(self, at: int, wanted: str) -> NoReturn:
        if at >= len(self.text):
            raise _Wrong(f"the file ends, but {wanted} is expected", at, at)
        sign = self.text[at]
        help = self.after(at)
        if sign in "}]" and self.text[:at].rstrip().endswith(","):
            help = "remove the comma before it"
        raise _Wrong(f"unexpected `{sign}`: {wanted} is expected", at, at + 1, help)

    def _string(self, at: int) -> tuple[Node, int]:
        match = _STRING.match(self.text, at)
        if match is None:
            self._unexpected(at, "a key in double quotes")
        end = match.end()
        sign = self.text[end : end + 1]
        if sign == "\\":
            raise _Wrong(
                f"`{self.text[end : end + 2]}` is not an escape",
                end,
                end + 2,
                'the escapes are \\" \\\\ \\/ \\n \\t \\r \\b \\f \\uXXXX',
                "E104",
            )
        if sign in ("", "\n", "\r"):
            raise _Wrong("there is no closing quote on this line", at, end)
        if sign != '"':
            raise _Wrong(
                "this string contains a control character",
                end,
                end + 1,
                f"write it as \\u{ord(sign):04x}",
            )
        span = Span(self.source, at, end + 1)
        text = json.loads(self.text[at : end + 1])
        half = _HALF.search(text)
        if half:
            raise _Wrong(
                f"`\\u{ord(half[0]):04x}` is half of a character",
                at,
                end + 1,
                "write both halves, or the character itself",
                "E104",
            )
        return Node(text, span), end + 1

    def _array(self, at: int, depth: int) -> tuple[Node, int]:
        elements: list[Node] = []
        here = self.blanks(at + 1)
        while self.text[here : here + 1] != "]" or elements:
            node, here = self.value(here, depth)
            elements.append(node)
            here = self.blanks(here)
            if self.text[here : here + 1] == "]":
                break
            here = self._comma(here, "]")
        return Node(tuple(elements), Span(self.source, at, here + 1)), here + 1

    def _object(self, at: int, depth: int) -> tuple[Node, int]:
        entries: Object = {}
        here = self.blanks(at + 1)
        while self.text[here : here + 1] != "}" or entries:
            key, here = self._string(here)
            here = self.blanks(here)
            if self.text[here : here + 1] != ":":
                self._unexpected(here, "a colon")
            node, here = self.value(self.blanks(here + 1), depth)
            if key.value in entries:
                self.report.add(
                    "E132",
                    f"the key `{key.value}` is given twice",
                    key.span,
                    help="remove one of them",
                    notes=[(entries[key.value][0].span, "first given here")],
                )
            entries.setdefault(key.value, (key, node))
            here = self.blanks(here)
            if self.text[here : here + 1] == "}":
                break
            here = self._comma(here, "}")
        return Node(entries, Span(self.source, at, here + 1)), here + 1

    def _comma(self, at: int, end: str) -> int:
        if self.text[at : at + 1] != ",":
            self._unexpected(at, f"a comma or `{end}`")
        return self.blanks(at + 1)


def laid_out(value: Any) -> str:
    """JSON in the canonical layout: two spaces a level, and on one line what fits and holds no
    other object or array.

    Args:
        value: a node, or what `json` would write, with numbers as `Numeral`s.
    """
    return _laid_out(value, "", 0) + "\n"


def _laid_out(value: Any, indent: str, before: int) -> str:
    """A value whose first line already has `before` characters, and gets one after it."""
    value = value.value if isinstance(value, Node) else value
    pairs: list[tuple[str, Any]]
    if isinstance(value, dict):
        entries = (
            (name, part[1] if isinstance(part, tuple) else part) for name, part in value.items()
        )
        pairs = [(f"{encode_basestring(name)}: ", part) for name, part in entries]
        opened, closed = "{", "}"
    elif isinstance(value, list | tuple) and not isinstance(value, Node):
        pairs = [("", part) for part in value]
        opened, closed = "[", "]"
    else:
        return _scalar(value)
    if not pairs:
        return opened + closed
    inner = [part.value if isinstance(part, Node) else part for _, part in pairs]
    if indent and not any(isinstance(part, dict | list | tuple) for part in inner):
        line = opened + ", ".join(f"{name}{_scalar(part)}" for name, part in pairs) + closed
        if before + len(line) < WIDTH:
            return line
    deeper = indent + "  "
    lines = [
        f"{deeper}{name}{_laid_out(part, deeper, len(deeper) + len(name))}" for name, part in pairs
    ]
    return opened + "\n" + ",\n".join(lines) + f"\n{indent}{closed}"


def _scalar(value: Any) -> str:
    value = value.value if isinstance(value, Node) else value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, Numeral | int | float) else encode_basestring(value)
