"""From a name to its declaration and back, and all its places under another name."""

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
    """Where the name at a place is declared; of a `use`, the file."""
    found = analysis.names.at(analysis.source(path), offset)
    if found:
        return location_of(analysis.names.declarations[found.symbol].word.span, analysis)
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
    """Every place of the name at a place, in all files of the spec."""
    found = analysis.names.at(analysis.source(path), offset)
    if found is None:
        return []
    places = [
        location_of(of.span, analysis)
        for of in analysis.names.of(found.symbol)
        if declaration or not of.declares
    ]
    return [of for of in places if of]


def highlights(analysis: Analysis, path: Path, offset: int) -> list[types.DocumentHighlight]:
    """The places of the name at a place in this file."""
    source, lines = analysis.source(path), analysis.lines(path)
    found = analysis.names.at(source, offset)
    kinds = types.DocumentHighlightKind
    return [
        types.DocumentHighlight(
            lines.range(of.span.start, of.span.end), kinds.Write if of.declares else kinds.Read
        )
        for of in (analysis.names.of(found.symbol) if found else ())
        if of.span.source is source
    ]


def renameable(
    analysis: Analysis, path: Path, offset: int
) -> types.PrepareRenamePlaceholder | None:
    """The name at a place, if it has a declaration that could be renamed."""
    found = analysis.names.at(analysis.source(path), offset)
    if found is None:
        return None
    place_of = analysis.lines(path).range(found.span.start, found.span.end)
    return types.PrepareRenamePlaceholder(place_of, found.symbol.name)


def rename(
    analyses: Iterable[Analysis], path: Path, offset: int, name: str
) -> dict[str, list[types.TextEdit]]:
    """The edits by file that give the thing at a place another name, in every spec it is part of.

    Raises: Refused: the name cannot be one, or is taken.
    """
    edits: dict[str, dict[tuple[int, int], types.TextEdit]] = {}
    for analysis in analyses:
        found = analysis.names.at(analysis.source(path), offset)
        if found is None:
            raise Refused("there is no name here that a declaration gives")
        if name == found.symbol.name:
            return {}
        _allowed(analysis, found, name)
        for of in analysis.names.of(found.symbol):
            place_of = location_of(of.span, analysis)
            if place_of:
                start = place_of.range.start
                file = edits.setdefault(place_of.uri, {})
                file[start.line, start.character] = types.TextEdit(place_of.range, name)
    return {uri: list(of.values()) for uri, of in edits.items()}


def _allowed(analysis: Analysis, found: Occurrence, name: str) -> None:
    symbol = found.symbol
    why = why_no_name(name)
    if why:
        raise Refused(f"{why}; {advice(name, symbol.kind)}")
    declared = analysis.names.declarations
    for other in _clashes(symbol, name):
        if other in declared:
            raise Refused(
                f"there is a {declared[other].what} `{name}` already, in line "
                f"{declared[other].word.span.line}"
            )


def _clashes(symbol: Symbol, name: str) -> list[Symbol]:
    """What else must not have the new name, for every reference to mean what it meant."""
    found = [Symbol(symbol.kind, symbol.scope, name), Symbol("let", "", name)]
    if symbol.kind in r.DATA:
        found += [Symbol(kind, "", name) for kind in r.DATA]
    if symbol.kind == "let":
        found += [Symbol(kind, "", name) for kind in ("stage", *names.DECLARING)]
    return found
