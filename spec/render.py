"""Diagnostics as people read them: code, message, place, the line with carets, a way out."""

import unicodedata

from .diagnostics import Diagnostic
from .source import Span

_COLORS = {"error": "1;31", "warning": "1;33", "note": "1;36"}


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _printable(text: str) -> str:
    """The text with a sign for every character that a terminal would act upon."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text)


def _excerpt(span: Span, gutter: int, mark: str, label: str, paint) -> list[str]:
    line, column = span.line, span.column
    text = _printable(span.source.line(line))
    end_line, end_column = span.source.position(max(span.end, span.start + 1))
    stop = end_column - 1 if end_line == line else len(text)
    shown = text.expandtabs(4)
    before = _width(text[: column - 1].expandtabs(4))
    length = max(_width(text[:stop].expandtabs(4)) - before, 1)
    if _width(shown) > 160:
        first = max(before - 60, 0)
        shown, before = "…" + shown[first : first + 140] + "…", before - first + 1
        length = min(length, 140 - before)
    pointer = " " * before + mark * max(length, 1) + (f" {label}" if label else "")
    return [
        f"{line:>{gutter}} │ {shown}",
        f"{'':>{gutter}} │ {paint(pointer)}",
    ]


def render(diagnostic: Diagnostic, *, color: bool = False) -> str:
    """One diagnostic as text of several lines, without a final newline."""

    def painted(code: str):
        return lambda text: f"\033[{code}m{text}\033[0m" if color else text

    tint = painted(_COLORS[diagnostic.severity])
    bold = painted("1")
    lines = [
        tint(f"{diagnostic.severity}[{diagnostic.code}]")
        + f": {bold(_printable(diagnostic.message))}"
    ]
    places = [s for s, _ in diagnostic.notes] + ([diagnostic.span] if diagnostic.span else [])
    gutter = max((len(str(s.line)) for s in places), default=1)
    if diagnostic.span:
        lines.append(f"{'':>{gutter}} ┌─ {diagnostic.span!r}")
        lines += _excerpt(diagnostic.span, gutter, "^", _printable(diagnostic.label), tint)
    for span, message in diagnostic.notes:
        lines.append(f"{'':>{gutter}} ├─ {span!r}: {message}")
        lines += _excerpt(span, gutter, "-", "", painted("36"))
    if diagnostic.span:
        lines.append(f"{'':>{gutter}} │")
    if diagnostic.help:
        lines.append(f"{'':>{gutter}} = help: {_printable(diagnostic.help)}")
    lines.append(f"{'':>{gutter}} = see:  etude explain {diagnostic.code}")
    return "\n".join(lines)


def render_all(diagnostics: list[Diagnostic], *, color: bool = False) -> str:
    """All diagnostics and a closing line that counts them."""
    parts = [render(d, color=color) for d in diagnostics]
    counts = []
    for severity in ("error", "warning", "note"):
        number = sum(d.severity == severity for d in diagnostics)
        if number:
            counts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    return "\n\n".join(parts) + ("\n\n" + ", ".join(counts) if counts else "")
