"""Incremental parsing: after an edit, blocks that were not touched are not parsed again."""

from ..spec import syntax as s
from ..spec.findings.diagnostics import Diagnostic, Report
from ..spec.source import Piece, Source
from ..spec.text.parse import parse
from ..spec.text.pieces import pieces

Read = tuple[Piece, tuple[s.Item, ...], list[Diagnostic]]
"""A piece, what it says, and what is wrong with it."""


class Parser:
    """Gives what `parse` gives, for texts that differ little from the one before.

    A text is cut where one block has ended and a line begins the next statement. Where braces do
    not match there is no telling where blocks end, and the text is read as a whole.

    The statements of a piece that is still there are the same objects as before, with their places
    moved: those that were given for an earlier text are of no use then.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[Read]] = {}

    def parse(self, source: Source, report: Report) -> tuple[s.Item, ...]:
        """The statements of a source; what cannot be read is reported and left out."""
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
        if same:  # each of several blocks that are the same is an object of its own
            read = same.pop()
            read[0].move(source, start)
            return read
        piece, own = Piece(text, source, start), Report()
        return piece, parse(piece, own), own.diagnostics
