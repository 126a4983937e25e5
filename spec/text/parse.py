"""Parses text to a syntax tree. One run reports every statement that cannot be parsed: see
`recovery`."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .. import syntax as s
from ..findings.diagnostics import Report
from ..quantity import plain
from ..source import Piece, Source, Span
from .reader import BRACES, Token, Unreadable, reader

SUFFIXES = {
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "B": Fraction(10**9),
    "T": Fraction(10**12),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "%": Fraction(1, 100),
    "x": Fraction(1),
}
MAX_NESTING = 64
MAX_SYNTAX_ERRORS = 20
MAX_CHARACTERS_READ_AGAIN = 250_000
"""After an error, a text is parsed again from its beginning; a long one less often."""
_NUMBER = re.compile(r"([0-9][0-9_]*(?:\.[0-9_]+)?)([eE][+-]?[0-9]+)?([A-Za-z%]*)")


def parse(source: Source | Piece, report: Report) -> tuple[s.Item, ...]:
    """The statements of a source. Reports and leaves out what cannot be read."""
    text = source.text if source.text.endswith("\n") else source.text + "\n"
    deep = _too_deep(text)
    if deep is not None:
        report.add(
            "E103",
            "braces are nested too deep here",
            Span(source, deep, deep + 1),
            help=f"nest at most {MAX_NESTING} deep",
        )
        return ()
    for _ in range(min(MAX_SYNTAX_ERRORS, max(MAX_CHARACTERS_READ_AGAIN // len(text), 2))):
        own = Report()
        try:
            items = reader().read(text, Builder(source, own).node)
        except Unreadable as problem:
            # Only after an error.
            from .pieces import pieces
            from .recovery import recover
            from .repair import stretches

            cuts = pieces(text) or stretches(text)
            if isinstance(source, Source) and len(cuts) > 1:
                return _by_pieces(source, text, cuts, report)
            shorter = recover(problem, text, source, report, _reach)
            if shorter == text:
                return ()
            text = shorter
        else:
            for found in own.diagnostics:
                report.take(found)
            return items
    return ()


def following(text: str) -> frozenset[str]:
    """The words and signs that the grammar accepts right after the beginning of a statement."""
    return reader().following(text)


def _reach(text: str) -> int:
    """How far a text can be read."""
    try:
        reader().read(text, lambda *_: None)
    except Unreadable as problem:
        return len(text) - 1 if problem.at_end else problem.position
    return len(text)


def _by_pieces(
    source: Source, text: str, cuts: Sequence[tuple[int, int]], report: Report
) -> tuple[s.Item, ...]:
    """The statements of a text that has an error, read in pieces: only one piece is lost."""
    items: list[s.Item] = []
    for start, end in cuts:
        items += parse(Piece(text[start:end], source, start), report)
    return tuple(items)


def tokens(text: str) -> list[Token]:
    """The tokens of a text without errors, except blanks and comments."""
    found: list[Token] = []

    def heard(kind: str, word: str, start: int) -> Token:
        found.append(Token(kind, word, start))
        return found[-1]

    reader().read(text, lambda *_: None, heard)
    return found


def _too_deep(text: str) -> int | None:
    """The first place where more than `MAX_NESTING` braces are open."""
    depth = 0
    for match in BRACES.finditer(text):
        if match[0] in "{[(":
            depth += 1
            if depth > MAX_NESTING:
                return match.start()
        elif match[0] in "}])":
            depth -= 1
    return None


def number(text: str, unit: s.Word | None, span: Span, place: Span, report: Report) -> s.Number:
    """A number as written; a placeholder after reporting if it is invalid.

    Args:
        span: the place of the number with its unit.
        place: the place of the number alone.
    """
    match = _NUMBER.fullmatch(text)
    assert match, text
    digits, exponent, suffix = match[1].replace("_", ""), match[2] or "", match[3]
    stand_in = s.Number(Fraction(1000), "", unit, str(text), span)
    if len(digits) > 40 or len(exponent) > 4 or abs(int(exponent[1:] or 0)) > 40:
        report.add("E112", "this number is out of range", place, help="use at most 40 digits")
        return stand_in
    if suffix not in SUFFIXES:
        _unknown_suffix(str(text), suffix, place, report)
        return stand_in
    value = Fraction(digits + exponent) * SUFFIXES[suffix]
    written = str(text) if unit is None else f"{text} {unit.name}"
    return s.Number(value, suffix, unit, written, span)


def _unknown_suffix(text: str, suffix: str, span: Span, report: Report) -> None:
    number = text[: len(text) - len(suffix)]
    guess = {
        "K": ("k", "Ki"),
        "m": ("M", "Mi"),
        "G": ("B", "Gi"),
        "g": ("B", "Gi"),
        "b": ("B", "Gi"),
        "t": ("T", "T"),
        "KB": ("k", "Ki"),
        "ki": ("k", "Ki"),
        "mi": ("M", "Mi"),
        "gi": ("B", "Gi"),
    }.get(suffix)
    if guess:
        decimal, binary = (SUFFIXES[g] * Fraction(number.replace("_", "")) for g in guess)
        help = f"write `{number}{guess[0]}` for {plain(decimal)}"
        if guess[0] != guess[1]:
            help += f" or `{number}{guess[1]}` for {plain(binary)}"
    else:
        help = "the suffixes are k M B T (powers of 1000), Ki Mi Gi (of 1024), % and x"
        if suffix[:1].islower() or len(suffix) > 2:
            help = f"a unit follows its number after a space: `{number} {suffix}`; " + help
    report.add("E111", f"`{suffix}` is not a suffix of numbers", span, help=help)


class Builder:
    """Builds the syntax tree; every rule of the grammar has a method."""

    def __init__(self, source: Source | Piece, report: Report) -> None:
        self.source = source
        self.report = report

    def node(self, kind: str, start: int, end: int, parts: list[Any]) -> Any:
        """The node that a rule of the grammar makes of its parts."""
        return getattr(self, kind)(Span(self.source, start, end), *parts)

    def _token(self, token: Token) -> Span:
        return Span(self.source, token.start, token.start + len(token))

    def start(self, span: Span, *items):
        return tuple(item for item in items if not isinstance(item, Token))

    def use(self, span, text):
        return s.Use(text, span)

    def let(self, span, word, *rest):
        return s.Let(word, rest[-1], span)

    def block(self, span, keyword, *rest):
        *labels, braces = rest
        kind = labels.pop() if isinstance(labels[-1], s.Word) else None
        return s.Block(keyword, tuple(label.of for label in labels), kind, braces.items, span)

    def label(self, span, value):
        return _Label(value)

    def assign(self, span, path, *rest):
        at = next((part.of for part in rest if isinstance(part, _At)), None)
        rest = [part for part in rest if not isinstance(part, Token | _At)]
        origin = rest.pop() if isinstance(rest[-1], s.Origin) else None
        claim = rest.pop() if isinstance(rest[-1], s.Claim) else None
        return s.Assign(path, at, rest[0], claim, origin, span)

    def at(self, span, value):
        return _At(value)

    def claim(self, span, within, reason=None):
        return s.Claim(within, reason)

    def reason(self, span, text):
        return s.Reason(False, text, span)

    def contradicted(self, span, text):
        return s.Reason(True, text, span)

    def cited(self, span, text):
        return s.Origin(False, text, span)

    def origin(self, span, text):
        return s.Origin(True, text, span)

    def entry(self, span, word, value):
        if isinstance(value, s.Braces):
            return s.Block(word, (), None, value.items, span)
        return s.Entry(word, value, span)

    def entry_list(self, span, word, index, value=None):
        if value is None:
            return s.Entry(word, index, span)
        path = s.Path((word,), word.span)
        return s.Entry(self.indexed(_joined(path, index), path, index), value, span)

    def entry_dotted(self, span, path, *rest):
        *index, value = rest
        if index:
            return s.Entry(self.indexed(_joined(path, index[0]), path, index[0]), value, span)
        return s.Entry(path, value, span)

    def every(self, span, word, every):
        return s.Every(word, every, span)

    def keep_last(self, span, amount):
        return self._keep(span, "last", amount)

    def keep_every(self, span, amount):
        return self._keep(span, "every", amount)

    def keep_all(self, span):
        return self._keep(span, "all", None)

    def _keep(self, span, how, amount):
        return s.Keep(
            s.Word("keep", span._replace(last=span.first + len("keep"))), how, amount, span
        )

    def flag(self, span, word):
        return s.Flag(word, span)

    def require(self, span, measure, op, value, of=None):
        word, argument = measure
        return s.Require(word, argument, str(op), value, of, span)

    def measure(self, span, word, argument=None):
        return word, argument

    def otherwise(self, span, length, times):
        return s.Otherwise(length, times, span)

    def filter(self, span, word, *rest):
        op = next((str(part) for part in rest if isinstance(part, Token)), "in")
        *share, what, value = (part for part in rest if not isinstance(part, Token))
        return s.Filter(word, share[0] if share else None, what, op, value, span)

    def allow(self, span, code, reason):
        return s.Allow(code, reason, span)

    def open(self, span, attribute, reason):
        return s.Open(attribute, reason, span)

    def alike(self, span, word, what, op, value):
        return s.Alike(word, what, str(op), value, span)

    def schedule(self, span, *parts):
        segments = tuple(part for part in parts if not isinstance(part, Token))
        if len(segments) == 1 and isinstance(segments[0], s.Hold) and segments[0].bound is None:
            return segments[0].value
        return s.Schedule(segments, span)

    def repeat(self, span, *parts):
        times, *segments = (part for part in parts if not isinstance(part, Token))
        return s.Repeat(times, tuple(segments), span)

    def hold(self, span, value, bound=None):
        return s.Hold(value, bound, span)

    def ramp(self, span, *parts):
        parts = [part for part in parts if not isinstance(part, Token)]
        bound = parts.pop() if isinstance(parts[-1], s.Bound) else None
        over = parts.pop().quantity if isinstance(parts[-1], _Over) else None
        levels = parts.pop().quantity if isinstance(parts[-1], _Levels) else None
        shape = parts.pop().name if isinstance(parts[-1], _Shape) else "linear"
        end = parts.pop()
        return s.Ramp(parts[0] if parts else None, end, shape, over, bound, span, levels)

    def shape(self, span, token):
        return _Shape(str(token))

    def levels(self, span, *parts):
        return _Levels(parts[-1])

    def over(self, span, quantity):
        return _Over(quantity)

    def bound_for(self, span, quantity):
        return s.Bound(True, quantity, span)

    def bound_until(self, span, quantity):
        return s.Bound(False, quantity, span)

    def periodic(self, span, what, every, over=None):
        return s.Periodic(what, every, over, span)

    def counted(self, span, number, what):
        if isinstance(number, Token):
            number = self._number(number, None, self._token(number))
        else:
            number = s.Path((number,), number.span)
        return s.Counted(number, what, span)

    def sized(self, span, what, size):
        return s.Sized(s.Word(str(what), self._token(what)), size, span)

    def quantity(self, span, number, unit=None):
        return self._number(number, unit, span)

    def _number(self, token: Token, unit: s.Word | None, span: Span) -> s.Number:
        return number(token, unit, span, self._token(token), self.report)

    def text(self, span, token):
        raw = str(token)[1:-1]
        value = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", self._escape(token), raw)
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        half = next((c for c in value if "\ud800" <= c <= "\udfff"), None)
        if half:
            self._bad_escape(f"\\u{ord(half):04x}", token, "half of a character")
        return s.Text(value, span)

    def _bad_escape(self, escape: str, token: Token, what: str = "not an escape") -> None:
        self.report.add(
            "E104",
            f"`{escape}` is {what}",
            self._token(token),
            help='the escapes are those of JSON: \\" \\\\ \\/ \\n \\t \\r \\b \\f \\uXXXX',
        )

    def _escape(self, token: Token):
        simple = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}

        def replace(match: re.Match[str]) -> str:
            escaped = match[1]
            if escaped in ('"', "\\", "/"):
                return escaped
            if escaped in simple:
                return simple[escaped]
            if len(escaped) == 5:
                return chr(int(escaped[1:], 16))
            self._bad_escape(f"\\{escaped}", token)
            return escaped

        return replace

    def path(self, span, *words):
        return s.Path(words, span)

    def named(self, span, word):
        return s.Path((word,), span)

    def dotted(self, span, *words):
        return s.Path(words, span)

    def indexed(self, span, path, index):
        return s.Indexed(path, index, span)

    def either(self, span, first, second):
        return s.Either(first, second, span)

    def range(self, span, first, last):
        return s.Range(first, last, span)

    def word(self, span, token):
        return s.Word(str(token), self._token(token))

    def list(self, span, *items):
        return s.List(tuple(i for i in items if not isinstance(i, Token)), span)

    def braces(self, span, *items):
        return s.Braces(tuple(i for i in items if not isinstance(i, Token)), span)

    def tagged(self, span, tag, braces):
        return s.Tagged(tag, braces, span)

    def scaled(self, span, base, factors):
        return s.Scaled(base, factors, span)


def _joined(first: s.Path, last: s.List) -> Span:
    return Span(first.span.origin, first.span.first, last.span.last)


class _Label:
    def __init__(self, of):
        self.of = of


class _At:
    def __init__(self, of):
        self.of = of


class _Over:
    def __init__(self, quantity):
        self.quantity = quantity


class _Levels:
    def __init__(self, quantity):
        self.quantity = quantity


class _Shape:
    def __init__(self, name):
        self.name = name
