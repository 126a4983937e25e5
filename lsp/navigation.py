"""Definitions, references and renaming."""

from collections.abc import Iterable
from pathlib import Path

from lsprotocol import types

from ..spec.schema import recipe as r
from ..spec.text.keywords import advice, why_no_name
from . import names
from .diagnostics import location_of
from .names import Occurrence, Symbol
from .places import place
from .project import Analysis


class Refused(Exception):
    """A rename that would break the spec; the message says why."""


def definition(analysis: Analysis, path: Path, offset: int) -> types.Location | None:
    """Where the name at a place is declared; for a `use`, the file."""
    named = analysis.names.at(analysis.source(path), offset)
    if named:
        return location_of(analysis.names.declarations[named.symbol].word.span, analysis)
    here = place(analysis.items(path), offset)
    file = getattr(here.item, "file", None) if here else None
    if file is not None:
        target = (path.parent / file.value).resolve()
        if target in analysis.trees:
            return types.Location(target.as_uri(), types.Range(_START, _START))
    return None


_START = types.Position(0, 0)


def references(
    analysis: Analysis, path: Path, offset: int, *, declaration: bool = True
) -> list[types.Location]:
    """Every occurrence of the name at a place, in all files of the spec."""
    named = analysis.names.at(analysis.source(path), offset)
    if named is None:
        return []
    places = [
        location_of(occurrence.span, analysis)
        for occurrence in analysis.names.of(named.symbol)
        if declaration or not occurrence.declares
    ]
    return [location for location in places if location]


def highlights(analysis: Analysis, path: Path, offset: int) -> list[types.DocumentHighlight]:
    """The occurrences in this file of the name at a place."""
    source, lines = analysis.source(path), analysis.lines(path)
    named = analysis.names.at(source, offset)
    kinds = types.DocumentHighlightKind
    return [
        types.DocumentHighlight(
            lines.range(occurrence.span.start, occurrence.span.end),
            kinds.Write if occurrence.declares else kinds.Read,
        )
        for occurrence in (analysis.names.of(named.symbol) if named else ())
        if occurrence.span.source is source
    ]


def renameable(
    analysis: Analysis, path: Path, offset: int
) -> types.PrepareRenamePlaceholder | None:
    """The name at a place, if its declaration can be renamed."""
    named = analysis.names.at(analysis.source(path), offset)
    if named is None:
        return None
    place_of = analysis.lines(path).range(named.span.start, named.span.end)
    return types.PrepareRenamePlaceholder(place_of, named.symbol.name)


def rename(
    analyses: Iterable[Analysis], path: Path, offset: int, name: str
) -> dict[str, list[types.TextEdit]]:
    """The edits, by file, that rename what is at a place in every spec that it is part of.

    Raises: Refused: the new name is invalid or taken.
    """
    edits: dict[str, dict[tuple[int, int], types.TextEdit]] = {}
    for analysis in analyses:
        named = analysis.names.at(analysis.source(path), offset)
        if named is None:
            raise Refused("there is no declared name here")
        if name == named.symbol.name:
            return {}
        _allowed(analysis, named, name)
        for occurrence in analysis.names.of(named.symbol):
            place_of = location_of(occurrence.span, analysis)
            if place_of:
                start = place_of.range.start
                file = edits.setdefault(place_of.uri, {})
                file[start.line, start.character] = types.TextEdit(place_of.range, name)
    return {uri: list(of_file.values()) for uri, of_file in edits.items()}


def _allowed(analysis: Analysis, named: Occurrence, name: str) -> None:
    symbol = named.symbol
    why = why_no_name(name)
    if why:
        raise Refused(f"{why}; {advice(name, symbol.kind)}")
    declared = analysis.names.declarations
    for other in _clashes(symbol, name):
        if other in declared:
            raise Refused(
                f"there is already a {declared[other].what} `{name}`, in line "
                f"{declared[other].word.span.line}"
            )


def _clashes(symbol: Symbol, name: str) -> list[Symbol]:
    """What else must not have the new name, so that every reference keeps its meaning."""
    symbols = [Symbol(symbol.kind, symbol.scope, name), Symbol("let", "", name)]
    if symbol.kind in r.DATA:
        symbols += [Symbol(kind, "", name) for kind in r.DATA]
    if symbol.kind == "let":
        symbols += [Symbol(kind, "", name) for kind in ("stage", *names.DECLARING)]
    return symbols
