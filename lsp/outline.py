"""The outline of a file: symbols, and what can be folded."""

from pathlib import Path

from lsprotocol import types

from ..spec import syntax as s
from ..spec.text.reader import BRACES
from .project import Analysis

_KINDS = {
    "recipe": types.SymbolKind.Module,
    "model": types.SymbolKind.Class,
    "tokenizer": types.SymbolKind.Class,
    "dataset": types.SymbolKind.Array,
    "cluster": types.SymbolKind.Object,
    "dialog": types.SymbolKind.Interface,
    "verifier": types.SymbolKind.Operator,
    "stage": types.SymbolKind.Function,
    "rounds": types.SymbolKind.Namespace,
    "variant": types.SymbolKind.Namespace,
    "expect": types.SymbolKind.Event,
}


def symbols(analysis: Analysis, path: Path) -> list[types.DocumentSymbol]:
    """The declarations of a file, with stages inside rounds and attributes inside blocks."""
    return [of for item in analysis.items(path) if (of := _symbol(item, analysis, path))]


def _symbol(item: s.Item, analysis: Analysis, path: Path) -> types.DocumentSymbol | None:
    lines = analysis.lines(path)
    whole = lines.range(item.span.start, item.span.end)
    match item:
        case s.Block():
            labels = [
                label.name if isinstance(label, s.Word) else label.text for label in item.labels
            ]
            name = labels[0] if labels else item.keyword.name
            at = item.labels[0] if item.labels else item.keyword
            detail = item.keyword.name + (f": {item.kind.name}" if item.kind else "")
            kind = _KINDS.get(item.keyword.name, types.SymbolKind.Object)
            inner = list(filter(None, (_symbol(part, analysis, path) for part in item.items)))
            chosen = lines.range(at.span.start, at.span.end)
            return types.DocumentSymbol(name, kind, whole, chosen, detail, children=inner)
        case s.Let():
            chosen = lines.range(item.word.span.start, item.word.span.end)
            return types.DocumentSymbol(
                item.word.name, types.SymbolKind.Constant, whole, chosen, "let"
            )
        case s.Assign():
            chosen = lines.range(item.path.span.start, item.path.span.end)
            return types.DocumentSymbol(
                item.path.name, types.SymbolKind.Property, whole, chosen, _short(item)
            )
    return None


def _short(item: s.Assign) -> str:
    span = item.value.span
    text = " ".join(span.source.text[span.start : span.end].split())
    return text if len(text) <= 60 else text[:59] + "…"


def folding(analysis: Analysis, path: Path) -> list[types.FoldingRange]:
    """Braces and brackets over several lines, and comments of several lines; broken texts too."""
    text, lines = analysis.source(path).text, analysis.lines(path)
    ranges: list[types.FoldingRange] = []
    opened: list[int] = []
    comment: list[int] = []
    kinds = types.FoldingRangeKind
    for match in BRACES.finditer(text):
        line = lines.position(match.start()).line
        if match[0].startswith("#"):
            if not text[lines.starts[line] : match.start()].strip():
                if comment and comment[-1] == line - 1:
                    comment.append(line)
                else:
                    _comments(comment, ranges)
                    comment = [line]
        elif match[0] in "{[(":
            opened.append(line)
        elif match[0] in "}])" and opened:
            first = opened.pop()
            if line - 1 > first:
                ranges.append(types.FoldingRange(first, line - 1, kind=kinds.Region))
    _comments(comment, ranges)
    return sorted(ranges, key=lambda of: (of.start_line, -of.end_line))


def _comments(lines: list[int], found: list[types.FoldingRange]) -> None:
    if len(lines) > 1:
        found.append(types.FoldingRange(lines[0], lines[-1], kind=types.FoldingRangeKind.Comment))
