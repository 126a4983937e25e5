"""What becomes of a spec by way of its JSON form, for the tests of it."""

from fractions import Fraction
from typing import Any

from etude.spec.convert_form import to_json, to_text
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads
from etude.spec.record import Record, fields
from etude.spec.source import Source, Span


def as_json(text: str) -> str:
    """The JSON of a spec that has it."""
    report = Report()
    made = to_json(Source("<text>", text), report)
    assert made is not None, [f"{d.span!r} {d.message}" for d in report.ordered()]
    return made


def as_text(text: str) -> str:
    """The text of a spec in JSON."""
    report = Report()
    made = to_text(Source("<text>", text), report)
    assert made is not None, [f"{d.span!r} {d.message}" for d in report.ordered()]
    return made


def meaning(of: Any) -> Any:
    """A recipe, or a part of one, without places: equal for specs that say the same."""
    if isinstance(of, Span):
        return None
    if isinstance(of, Record):
        left_out = {"main", "lets", "places"}
        names = [name for name in fields(of) if name not in left_out]
        found = {name: meaning(getattr(of, name)) for name in names}
        for name in {"expectations", "allowances"} & found.keys():
            found[name].sort(key=repr)  # their order means nothing
        return type(of).__name__, found
    if isinstance(of, dict):
        return {key: meaning(value) for key, value in of.items()}
    if isinstance(of, list | tuple):
        return [meaning(value) for value in of]
    assert of is None or isinstance(of, str | int | float | Fraction | frozenset), of
    return of


def bound(text: str) -> Any:
    """What a spec says, or the codes of what is wrong with it."""
    report = Report()
    recipe = loads(text, report)
    if recipe is None:
        return sorted(d.code for d in report.diagnostics)
    return meaning(recipe)
