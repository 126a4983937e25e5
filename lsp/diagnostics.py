"""Findings as an editor shows them."""

from pathlib import Path

from lsprotocol import types

from ..spec.findings.diagnostics import Diagnostic
from ..spec.source import Span
from . import rules
from .project import Analysis

SEVERITIES = {
    "error": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
    "note": types.DiagnosticSeverity.Information,
}


def diagnostics(analysis: Analysis) -> dict[Path, list[types.Diagnostic]]:
    """The findings of a spec by file; one without a place stands at the main file's beginning."""
    found: dict[Path, list[types.Diagnostic]] = {path: [] for path in analysis.trees}
    for of in analysis.diagnostics:
        path = analysis.paths.get(of.span.source) if of.span else analysis.main
        if path in found:
            found[path].append(one(of, path, analysis))
    return found


def one(of: Diagnostic, path: Path, analysis: Analysis) -> types.Diagnostic:
    """A finding in a file."""
    lines = analysis.lines(path)
    span = of.span
    place = lines.range(span.start, max(span.end, span.start)) if span else lines.range(0, 0)
    message = of.message + (f" ({of.label})" if of.label else "")
    if of.help:
        message += f"\nhelp: {of.help}"
    related = [
        types.DiagnosticRelatedInformation(location, text)
        for note, text in of.notes
        if (location := location_of(note, analysis))
    ]
    return types.Diagnostic(
        range=place,
        message=message,
        severity=SEVERITIES[of.severity],
        code=of.code,
        code_description=types.CodeDescription(rules.page(of.code)),
        source="etude",
        related_information=related or None,
        tags=[types.DiagnosticTag.Unnecessary] if of.code in rules.UNUSED else None,
        data={"help": of.help},
    )


def location_of(span: Span, analysis: Analysis) -> types.Location | None:
    """Where a span is, as editors name places."""
    path = analysis.paths.get(span.source)
    if path is None:
        return None
    return types.Location(path.as_uri(), analysis.lines(path).range(span.start, span.end))
