"""Parsing again after an edit: blocks that were not touched are not read a second time."""

from collections.abc import Sequence

from ..spec import syntax as s
from ..spec.diagnostics import Diagnostic, Report
from ..spec.parse import add_moved, parse
from ..spec.pieces import moved, pieces
from ..spec.source import Source


class Parser:
    """Gives what `parse` gives, for texts that differ little from the one before.

    A text is cut where one block has ended and a line begins the next statement. Where braces do
    not match there is no telling where blocks end, and the text is read as a whole.
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[Sequence[s.Item], list[Diagnostic]]] = {}

    def parse(self, source: Source, report: Report) -> tuple[s.Item, ...]:
        cuts = pieces(source.text)
        if cuts is None:
            return parse(source, report)
        known: dict[str, tuple[Sequence[s.Item], list[Diagnostic]]] = {}
        items: list[s.Item] = []
        for start, end in cuts:
            text = source.text[start:end]
            found = self.known.get(text) or known.get(text)
            if found is None:
                own = Report()
                found = parse(Source(source.name, text), own), own.diagnostics
            known[text] = found
            statements, diagnostics = found
            items += [moved(item, source, start) for item in statements]
            add_moved(diagnostics, source, start, report)
        self.known = known
        return tuple(items)
