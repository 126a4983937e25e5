"""Diagnostics for people: code, message, place, the line with carets, and a fix."""

from collections.abc import Callable, Iterator

from ..source import Span
from ..urls import masked
from .diagnostics import Diagnostic
from .paragraphs import cells, wrapped

_COLORS = {"error": "1;31", "warning": "1;33", "note": "1;36"}
_LONGEST = 160
"""How many columns of a spec's line are shown; a longer line is cut around the place."""


def _printable(text: str) -> str:
    """The text with a sign in place of every unprintable character: a terminal might act on it."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text)


def _excerpt(
    span: Span,
    gutter: int,
    mark: str,
    label: str,
    paint: Callable[[str], str],
    columns: int | None,
) -> Iterator[str]:
    line, column = span.line, span.column
    text = masked(_printable(span.source.line(line)))
    end_line, end_column = span.source.position(max(span.end, span.start + 1))
    stop = end_column - 1 if end_line == line else len(text)
    shown = text.expandtabs(4)
    before = cells(text[: column - 1].expandtabs(4))
    length = max(cells(text[:stop].expandtabs(4)) - before, 1)
    room = max(min(columns - gutter - 3, _LONGEST), 24) if columns else _LONGEST
    if cells(shown) > room:
        first = max(before - room * 3 // 8, 0) if before + length > room - 2 else 0
        part = shown[first : first + room - 2]
        shown = "…" * (first > 0) + part + "…" * (first + len(part) < len(shown))
        before += (first > 0) - first
        length = max(min(length, room - 2 - before), 1)
    yield f"{line:>{gutter}} │ {shown}"
    bar = f"{'':>{gutter}} │ "
    pointer = " " * before + mark * length
    if not columns or len(bar) + len(pointer) + 1 + cells(label) <= columns or not label:
        yield bar + paint(pointer + (f" {label}" if label else ""))
        return
    yield bar + paint(pointer)
    # A label that does not fit beside the carets goes below, indented as little as necessary.
    indent = max(min(before, columns - len(bar) - cells(label)), 0)
    yield from (
        bar + paint(each) for each in wrapped(label, columns - len(bar), first=" " * indent)
    )


def render(diagnostic: Diagnostic, *, color: bool = False, columns: int | None = None) -> str:
    """One diagnostic as text of several lines, without a final newline.

    Args:
        columns: of the terminal; None: no limit.
    """

    def painted(code: str) -> Callable[[str], str]:
        return lambda text: f"\033[{code}m{text}\033[0m" if color else text

    tint, bold = painted(_COLORS[diagnostic.severity]), painted("1")
    head = f"{diagnostic.severity}[{diagnostic.code}]"
    first, *more = wrapped(f"{head}: {_printable(diagnostic.message)}", columns, rest="  ")
    lines = [tint(head) + ": " + bold(first.removeprefix(f"{head}: ")), *map(bold, more)]
    places = [s for s, _ in diagnostic.notes] + ([diagnostic.span] if diagnostic.span else [])
    gutter = max((len(str(s.line)) for s in places), default=1)
    margin = f"{'':>{gutter}} "
    if diagnostic.span:
        lines.append(f"{margin}┌─ {diagnostic.span!r}")
        label = _printable(diagnostic.label)
        lines += _excerpt(diagnostic.span, gutter, "^", label, tint, columns)
    for span, message in diagnostic.notes:
        lines += wrapped(message, columns, first=f"{margin}├─ {span!r}: ", rest=f"{margin}│  ")
        lines += _excerpt(span, gutter, "-", "", painted("36"), columns)
    if diagnostic.span:
        lines.append(f"{margin}│")
    if diagnostic.help:
        help = _printable(diagnostic.help)
        lines += wrapped(help, columns, first=f"{margin}= help: ", rest=f"{margin}        ")
    lines.append(f"{margin}= see:  etude explain {diagnostic.code}")
    return "\n".join(lines)


def render_all(
    diagnostics: list[Diagnostic], *, color: bool = False, columns: int | None = None
) -> str:
    """All diagnostics and a closing line that counts them."""
    parts = [render(d, color=color, columns=columns) for d in diagnostics]
    counts = []
    for severity in ("error", "warning", "note"):
        number = sum(d.severity == severity for d in diagnostics)
        if number:
            counts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    return "\n\n".join(parts) + ("\n\n" + ", ".join(counts) if counts else "")
