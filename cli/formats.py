"""Findings for other programs: JSON, SARIF 2.1.0 and GitHub's annotation commands."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..spec.findings.codes import Rule, rule
from ..spec.findings.diagnostics import Diagnostic, Report, Silenced
from ..spec.source import Span

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
PAGES = "https://etude.readthedocs.io/errors"


def as_json(reports: Sequence[Report]) -> str:
    """`{"diagnostics": […], "silenced": […]}`, for all files."""
    found = [d.to_dict() for report in reports for d in report.ordered()]
    silenced = [each.to_dict() for report in reports for each in report.silenced]
    return json.dumps({"diagnostics": found, "silenced": silenced}, indent=2, ensure_ascii=False)


def as_github(reports: Sequence[Report]) -> str:
    """Workflow commands that annotate the lines of a pull request, one per line."""
    return "\n".join(_command(d) for report in reports for d in report.ordered())


def _command(found: Diagnostic) -> str:
    kind = {"error": "error", "warning": "warning", "note": "notice"}[found.severity]
    properties: dict[str, Any] = {}
    if found.span:
        end_line, end_column = found.span.source.position(found.span.end)
        properties = {"file": found.span.source.name, "line": found.span.line, "endLine": end_line}
        if end_line == found.span.line:  # columns only make sense within one line
            properties |= {"col": found.span.column, "endColumn": max(end_column - 1, 1)}
    properties["title"] = f"{found.code}: {rule(found.code).title}"
    shown = ",".join(f"{name}={_escaped(str(of), ':,')}" for name, of in properties.items())
    return f"::{kind} {shown}::{_escaped(_whole(found))}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _whole(found: Diagnostic) -> str:
    parts = [found.message, found.label, found.help and f"help: {found.help}"]
    return "\n".join(part for part in parts if part)


def as_sarif(reports: Sequence[Report]) -> str:
    """A SARIF 2.1.0 log of one run; a finding silenced by `allow` is a suppressed result."""
    found: list[tuple[Diagnostic, Silenced | None]] = []
    for report in reports:
        found += [(diagnostic, None) for diagnostic in report.ordered()]
        found += [(each.finding, each) for each in report.silenced]
    codes = sorted({diagnostic.code for diagnostic, _ in found})
    driver = {
        "name": "etude",
        "version": version("etude"),
        "informationUri": "https://etude.readthedocs.io",
        "rules": [_descriptor(rule(code)) for code in codes],
    }
    results = [_result(d, silenced, codes.index(d.code)) for d, silenced in found]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _descriptor(of: Rule) -> dict[str, Any]:
    return {
        "id": of.code,
        "shortDescription": {"text": of.title},
        "fullDescription": {"text": of.text},
        "helpUri": f"{PAGES}/{of.code}",
        "defaultConfiguration": {"level": _level(of.code)},
    }


def _level(code: str) -> str:
    return {"E": "error", "W": "warning", "N": "note"}[code[0]]


def _result(found: Diagnostic, silenced: Silenced | None, index: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": index,
        "level": _level(found.code),
        "message": {"text": _whole(found)},
    }
    if found.span:
        result["locations"] = [{"physicalLocation": _location(found.span)}]
    if found.notes:
        result["relatedLocations"] = [
            {"physicalLocation": _location(span), "message": {"text": text}}
            for span, text in found.notes
        ]
    if silenced:
        result["suppressions"] = [
            {
                "kind": "inSource",
                "justification": silenced.reason,
                "location": {"physicalLocation": _location(silenced.span)},
            }
        ]
    return result


def _location(span: Span) -> dict[str, Any]:
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    path = Path(span.source.name)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    return {
        "artifactLocation": {"uri": uri},
        "region": {
            "startLine": line,
            "startColumn": column,
            "endLine": end_line,
            "endColumn": end_column,
        },
    }
