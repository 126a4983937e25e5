"""Incremental parsing: after an edit, unchanged blocks are not parsed again."""

from ..spec import syntax as s
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.source import Piece, Source
from ..spec.text.parse import parse
from ..spec.text.pieces import pieces

Read = tuple[Piece, tuple[s.Item, ...], list[Diagnostic]]
"""A piece, its statements, and its findings."""


class Parser:
    """Returns what `parse` returns, for texts that differ little from the previous one.

    A text is cut where a block has ended and the next statement begins on a new line. If braces do
    not match, the ends of blocks are unknown, and the text is parsed as a whole.

    The statements of an unchanged piece are the same objects as before, with their places moved:
    those returned for an earlier text must not be used any more.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[Read]] = {}

    def parse(self, source: Source, report: Report) -> tuple[s.Item, ...]:
        """The statements of a source; reports and leaves out what cannot be read."""
        cuts = pieces(source.text)
        if cuts is None:
            return parse(source, report)
        known: dict[str, list[Read]] = {}
        items: list[s.Item] = []
        for start, end in cuts:
            read = self._read(source.text[start:end], source, start)
            known.setdefault(read[0].text, []).append(read)
            items += read[1]
            for found in read[2]:
                report.take(found)
        self.known = known
        return tuple(items)

    def _read(self, text: str, source: Source, start: int) -> Read:
        same = self.known.get(text)
        if same:  # identical blocks have an object each
            read = same.pop()
            read[0].move(source, start)
            return read
        piece, own = Piece(text, source, start), Report()
        return piece, parse(piece, own), own.diagnostics
