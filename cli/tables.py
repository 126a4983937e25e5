"""Readable tables: as wide as the terminal, with every word and number whole."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..spec.findings.paragraphs import breakable, cells, wrapped
from .screen import Ink, clean, width

ROOM = 18
"""The least width of a column of sentences."""
FIRST = 24
"""The least width of the first column, of names."""
LEAST = 6
"""The least width of any column, as the last resort."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        right: numbers, which are right-aligned and never broken.
        head: on a terminal, each value is shown once, above its rows.
        below: if the table is too wide, the values are shown below their rows.
    """

    name: str
    right: bool = False
    head: bool = False
    below: bool = False


class Row(NamedTuple):
    """A row: a text for each column, and a style of `Ink`."""

    texts: Sequence[str]
    style: str = ""


Section = Sequence[Row]
"""Rows that belong together; a line separates sections."""


def show(columns: Sequence[Column], sections: Sequence[Section]) -> None:
    """Prints a table: in a pipe with lines of any length, otherwise as wide as the terminal."""
    print("\n".join(drawn(columns, sections, width())))


def drawn(
    columns: Sequence[Column], sections: Sequence[Section], room: int | None
) -> Iterator[str]:
    """The lines of a table.

    Args:
        room: maximum width of a line; None: unlimited.
    """
    sections = [
        [row._replace(texts=tuple(map(clean, row.texts))) for row in section]
        for section in sections
        if section
    ]
    if room is None:
        yield from _boxed(columns, sections)
        return
    for part in _parts(columns, sections, room):
        yield from part
        yield ""


class _Layout(NamedTuple):
    """How a table is drawn: its columns, their widths, those below, and the space between."""

    shown: list[int]
    widths: list[int]
    below: list[int]
    gap: int


def _parts(
    columns: Sequence[Column], sections: Sequence[Section], room: int
) -> Iterator[Iterator[str]]:
    """The table; if it is too wide, several tables, each with the first column."""
    shown = [n for n, column in enumerate(columns) if not column.head]
    layout = _layout(columns, sections, shown, room)
    if layout is not None:
        yield _lines(columns, sections, layout, room)
        return
    first, *others = shown
    while others:
        count = len(others)
        while count:
            layout = _layout(columns, sections, [first, *others[:count]], room)
            if layout is not None:
                break
            count -= 1
        if layout is None:
            count = 1
            layout = _forced(columns, sections, [first, others[0]], room)
        yield _lines(columns, sections, layout, room)
        others = others[count:]


def _layout(
    columns: Sequence[Column], sections: Sequence[Section], shown: list[int], room: int
) -> _Layout | None:
    """The first of these that is narrow enough: every row on one line, sentences wrapped, columns
    below, long names broken after dots and slashes."""
    below = [n for n in shown if columns[n].below]
    beside = [n for n in shown if n not in below]
    natural = {n: max(_texts(columns, sections, n, cells)) for n in shown}
    for which, soft, gap in (
        (shown, False, 3),
        (shown, False, 2),
        (beside, False, 2),
        (beside, True, 2),
        (shown, True, 2),
    ):
        if not which:
            continue
        free = room - 2 - gap * (len(which) - 1)
        least = [_least(columns, sections, n, natural[n], soft=soft) for n in which]
        if sum(least) <= free:
            widths = _shared(least, [natural[n] for n in which], free)
            return _Layout(which, widths, below if which is beside else [], gap)
    return None


def _forced(
    columns: Sequence[Column], sections: Sequence[Section], shown: list[int], room: int
) -> _Layout:
    """The last resort: columns as narrow as the longest parts of their words, or narrower."""
    natural = [max(_texts(columns, sections, n, cells)) for n in shown]
    free = max(room - 2 - 2 * (len(shown) - 1), LEAST * len(shown))
    least = [
        want if columns[n].right else max(_texts(columns, sections, n, _longest_part))
        for n, want in zip(shown, natural, strict=True)
    ]
    if sum(least) > free:
        least = [min(LEAST, want) for want in natural]
    return _Layout(shown, _shared(least, natural, free), [], 2)


def _texts(
    columns: Sequence[Column],
    sections: Sequence[Section],
    number: int,
    measure: Callable[[str], int],
) -> Iterator[int]:
    yield max(map(cells, columns[number].name.split()), default=0)
    for section in sections:
        yield from (measure(row.texts[number]) for row in section)


def _least(
    columns: Sequence[Column],
    sections: Sequence[Section],
    number: int,
    natural: int,
    *,
    soft: bool,
) -> int:
    """The least width of a column: that of its longest word; numbers are not broken."""

    if columns[number].right:
        return natural
    measure = _longest_part if soft else _longest_word
    room = ROOM if number else FIRST
    return max(min(natural, room), *_texts(columns, sections, number, measure))


def _longest_word(text: str) -> int:
    return max(map(cells, text.split()), default=0)


def _longest_part(text: str) -> int:
    return max((cells(part) for word in text.split() for part in breakable(word)), default=0)


def _shared(least: list[int], natural: list[int], free: int) -> list[int]:
    """Widths between the least and the natural ones: the most squeezed column grows first."""
    widths = list(least)
    for _ in range(free - sum(widths)):
        wanting = [n for n, want in enumerate(natural) if widths[n] < want]
        if not wanting:
            break
        widths[max(wanting, key=lambda n: natural[n] / max(widths[n], 1))] += 1
    return widths


def _lines(
    columns: Sequence[Column], sections: Sequence[Section], layout: _Layout, room: int
) -> Iterator[str]:
    ink = Ink()
    heads = [n for n, column in enumerate(columns) if column.head]
    yield from _row(columns, [c.name for c in columns], layout, "", ink)
    wide = sum(layout.widths) + layout.gap * (len(layout.widths) - 1)
    yield " " + _rule() * wide
    for number, section in enumerate(sections):
        if number:
            yield ""
        for head, rows in groupby(section, key=lambda row: [row.texts[n] for n in heads]):
            for text in filter(None, head):
                yield from wrapped(ink(text, "bold"), room, first=" ", rest="   ")
            for row in rows:
                yield from _row(columns, row.texts, layout, row.style, ink)
                for each in layout.below:
                    if row.texts[each]:
                        said = f"{columns[each].name}: {row.texts[each]}"
                        painted = ink(said, row.style or "dim")
                        yield from wrapped(painted, room, first=" " * 5, rest=" " * 7)


def _row(
    columns: Sequence[Column], texts: Sequence[str], layout: _Layout, style: str, ink: Ink
) -> Iterator[str]:
    broken = [_broken(texts[n], each) for n, each in zip(layout.shown, layout.widths, strict=True)]
    for number in range(max(map(len, broken))):
        line = []
        for n, each, own in zip(layout.shown, layout.widths, broken, strict=True):
            text = own[number] if number < len(own) else ""
            pad = " " * (each - cells(text))
            line.append(pad + ink(text, style) if columns[n].right else ink(text, style) + pad)
        yield (" " + (" " * layout.gap).join(line)).rstrip()


def _broken(text: str, columns: int) -> list[str]:
    """The lines of a cell."""
    found = []
    for line in text.split("\n"):
        found += wrapped(line, columns) if cells(line) > columns else [line]
    return found


def _rule() -> str:
    try:
        "─".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "-"
    return "─"


def _boxed(columns: Sequence[Column], sections: Sequence[Section]) -> Iterator[str]:
    """Lines of any length, for programs and editors."""
    texts = [[c.name for c in columns], *(row.texts for rows in sections for row in rows)]
    widths = [max(cells(row[n]) for row in texts) for n in range(len(columns))]
    # The outer cells have no space next to the border.
    rule = (
        "+"
        + "+".join("-" * (each + (n > 0) + (n < len(widths) - 1)) for n, each in enumerate(widths))
        + "+"
    )

    def line(row: Sequence[str]) -> str:
        own = []
        for column, text, each in zip(columns, row, widths, strict=True):
            pad = " " * (each - cells(text))
            own.append(pad + text if column.right else text + pad)
        return "|" + " | ".join(own) + "|"

    yield rule
    yield line(texts[0])
    for section in sections:
        yield rule
        yield from (line(row.texts) for row in section)
    yield rule
