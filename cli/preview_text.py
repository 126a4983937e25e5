"""Text of data sets, made safe and fully visible for terminals."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

Look = Literal["plain", "protocol", "special", "learned", "learned special", "sign"]

_COLOURS: dict[str, str] = {
    "plain": "",
    "protocol": "2",
    "special": "36",
    "learned": "1;32",
    "learned special": "1;4;32",
    "sign": "2;35",
}
# A character with everything attached to it: marks, variation selectors, skin tones, what a
# zero-width joiner joins; the two letters of a flag; consecutive line feeds, with the carriage
# returns before them.
_CLUSTER = re.compile(
    "(?:\r?\n)+"
    "|[\U0001f1e6-\U0001f1ff]{2}"
    "|.(?:[\u0300-\u036f\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\u20d0-\u20ff]|\u200d(?=[^\\s\\w]).)*",
    re.DOTALL,
)
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True)
class Style:
    """How text is shown.

    Attributes:
        color: whether learned text is coloured; otherwise it is in brackets.
        width: columns.
        encoding: of the stream; "ascii" if signs must be spelt out.
    """

    color: bool
    width: int
    encoding: str
    opens: str = "⟦"
    closes: str = "⟧"
    newline: str = "⏎"
    tab: str = "⇥"
    rule: str = "─"
    more: str = "…"

    @classmethod
    def of(cls, color: bool, encoding: str, width: int) -> "Style":
        """The style of a stream, with signs in its encoding."""
        try:
            "⟦⟧⏎⇥─…·".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return cls(color, width, "ascii", "[[", "]]", "\\n", "\\t", "-", "...")
        return cls(color, width, encoding)

    def painted(self, text: str, look: Look) -> str:
        code = _COLOURS[look]
        return f"\033[{code}m{text}\033[0m" if self.color and code and text else text

    def visible(self, cluster: str) -> str | None:
        """What is shown for a cluster that cannot be shown itself; None if it can."""
        if cluster in (self.opens, self.closes) and not self.color:
            return _code(cluster)
        category = unicodedata.category(cluster[0])
        if category in _HIDDEN:
            return _sign(cluster[0], self) + cluster[1:]
        if any(unicodedata.category(c) in _HIDDEN and c != "\u200d" for c in cluster[1:]):
            return "".join(_code(c) if unicodedata.category(c) in _HIDDEN else c for c in cluster)
        if category == "Zs" and cluster != " ":
            return _code(cluster[0])
        try:
            cluster.encode(self.encoding)
        except UnicodeEncodeError:
            return "".join(map(_code, cluster))
        return None


def _sign(character: str, style: Style) -> str:
    number = ord(character)
    if character == "\t":
        return style.tab
    if style.encoding != "ascii" and number < 0x20:
        return chr(0x2400 + number)
    return _code(character)


def _code(character: str) -> str:
    return f"<U+{ord(character):04X}>"


@dataclass(frozen=True)
class Span:
    """A stretch of text with its look."""

    text: str
    look: Look

    @property
    def learned(self) -> bool:
        return self.look.startswith("learned")


@dataclass(frozen=True)
class _Atom:
    """A piece of text that is not divided between lines."""

    text: str
    look: Look
    cells: int
    ends: bool = False
    space: bool = False


def lines(spans: Sequence[Span], style: Style, width: int) -> Iterator[str]:
    """Breaks text into lines of a limited width.

    Line feeds are shown, so a line without one continues in the next.
    """
    line: list[_Atom] = []
    cells = 0
    for atom in _atoms(spans, style):
        if cells + atom.cells > width and line:
            kept, line = _broken(line)
            yield _drawn(kept, style)
            cells = sum(each.cells for each in line)
        line.append(atom)
        cells += atom.cells
        if atom.ends:
            yield _drawn(line, style)
            line, cells = [], 0
    if line:
        yield _drawn(line, style)


def _broken(line: list[_Atom]) -> tuple[list[_Atom], list[_Atom]]:
    """Splits a full line after its last space, if that is in the line's second half."""
    for place in range(len(line), len(line) // 2, -1):
        if line[place - 1].space:
            return line[:place], line[place:]
    return line, []


def _drawn(line: list[_Atom], style: Style) -> str:
    text, look, run = [], None, ""
    for atom in line:
        if atom.look != look:
            text.append(style.painted(run, look) if look else run)
            look, run = atom.look, ""
        run += atom.text
    return "".join([*text, style.painted(run, look) if look else run])


def _atoms(spans: Sequence[Span], style: Style) -> Iterator[_Atom]:
    learned = False
    held: _Atom | None = None
    for span in spans:
        if span.learned != learned and not style.color:
            sign = style.opens if span.learned else style.closes
            # A closing bracket stays with what it closes.
            if held and not span.learned:
                held = _Atom(held.text + sign, held.look, held.cells + cell_len(sign), held.ends)
            else:
                yield from (each for each in [held] if each)
                held = _Atom(sign, "plain", cell_len(sign))
        learned = span.learned
        for atom in _clusters(span, style):
            if held:
                yield held
            held = atom
    if held:
        if learned and not style.color:
            text = held.text + style.closes
            held = _Atom(text, held.look, cell_len(text), held.ends)
        yield held


def _clusters(span: Span, style: Style) -> Iterator[_Atom]:
    first = True
    for match in _CLUSTER.finditer(span.text):
        cluster = match[0]
        if cluster.endswith("\n"):
            returns = _sign("\r", style)
            text = "".join(returns if c == "\r" else style.newline for c in cluster)
            look: Look = span.look if span.learned else "sign"
            yield _Atom(text, look, cell_len(text), ends=True)
        elif (shown := style.visible(cluster)) is not None:
            yield _Atom(shown, span.look if span.learned else "sign", cell_len(shown))
        else:
            # A mark without its character would attach to the character before.
            if first and unicodedata.category(cluster[0]).startswith("M"):
                cluster = "\u25cc" + cluster
            yield _Atom(cluster, span.look, cell_len(cluster), space=cluster == " ")
        first = False
