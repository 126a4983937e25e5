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
    """The findings of a spec by file; those without a place are at the main file's beginning."""
    by_file: dict[Path, list[types.Diagnostic]] = {path: [] for path in analysis.trees}
    for finding in analysis.diagnostics:
        path = analysis.paths.get(finding.span.source) if finding.span else analysis.main
        if path in by_file:
            by_file[path].append(one(finding, path, analysis))
    return by_file


def one(finding: Diagnostic, path: Path, analysis: Analysis) -> types.Diagnostic:
    """A finding as a diagnostic of its file."""
    lines = analysis.lines(path)
    span = finding.span
    place = lines.range(span.start, max(span.end, span.start)) if span else lines.range(0, 0)
    message = finding.message + (f" ({finding.label})" if finding.label else "")
    if finding.help:
        message += f"\nhelp: {finding.help}"
    related = [
        types.DiagnosticRelatedInformation(location, text)
        for note, text in finding.notes
        if (location := location_of(note, analysis))
    ]
    return types.Diagnostic(
        range=place,
        message=message,
        severity=SEVERITIES[finding.severity],
        code=finding.code,
        code_description=types.CodeDescription(rules.page(finding.code)),
        source="etude",
        related_information=related or None,
        tags=[types.DiagnosticTag.Unnecessary] if finding.code in rules.UNUSED else None,
        data={"help": finding.help},
    )


def location_of(span: Span, analysis: Analysis) -> types.Location | None:
    """The editor's location of a span."""
    path = analysis.paths.get(span.source)
    if path is None:
        return None
    return types.Location(path.as_uri(), analysis.lines(path).range(span.start, span.end))
