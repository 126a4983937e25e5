"""Converts a spec from one form to the other: text to JSON and JSON to text."""

from collections.abc import Sequence

from . import syntax as s
from .findings.diagnostics import Report
from .json.json_text import laid_out
from .json.to_json import Unfit, as_json
from .load import in_json, statements
from .schema.bind import bind
from .source import Source
from .text.format import FormatError, format_text
from .text.to_text import Unsayable
from .text.to_text import text as written


def to_json(source: Source, report: Report) -> str | None:
    """A spec as canonical JSON; None, with the findings, if it has errors that JSON could not
    hold. Comments are lost.

    Raises: FormatError: JSON cannot hold a spec without errors; never seen.
    """
    items = _read(source, report)
    if items is None:
        return None
    try:
        return laid_out(as_json(items))
    except Unfit as unfit:
        bind(items, report, broken=True)
        if not report.errors:
            raise FormatError(unfit) from None
        return None


def to_text(source: Source, report: Report) -> str | None:
    """A spec as canonical text; None, with the findings, if it cannot be read. A text keeps its
    comments."""
    if not in_json(source):
        return format_text(source, report)
    items = _read(source, report)
    if items is None:
        return None
    try:
        return written(items)
    except Unsayable as wrong:
        bind(items, report, broken=True)
        if not report.errors:
            report.add(
                "E133",
                "something here cannot be written in a text",
                wrong.span,
                help="keywords, such as `let` and `use`, cannot name a source",
            )
        return None


def _read(source: Source, report: Report) -> Sequence[s.Item] | None:
    items = statements(source, report)
    return None if report.errors else items
