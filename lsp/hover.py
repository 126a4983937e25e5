"""Hover texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsprotocol import types

from ..compiler.plan.provenance import Origin
from ..spec import syntax as s
from ..spec.quantity import UNITS, literal, plain
from ..spec.schema import documentation
from ..spec.schema import recipe as r
from ..spec.schema.convert import Invalid
from ..spec.schema.number_kinds import LENGTH
from ..spec.text.keywords import BLOCKS
from . import names, rules, values
from .places import Place, place
from .project import Analysis

MAX_LINES = 16


def hover(analysis: Analysis, path: Path, offset: int) -> types.Hover | None:
    """The meaning, value and origin of what is at a place; findings with their rule."""
    source, lines = analysis.source(path), analysis.lines(path)
    parts: list[str] = []
    span = None
    for finding in analysis.diagnostics:
        own = finding.span
        if own and own.source is source and own.start <= offset <= own.end:
            parts.append(rules.markdown(finding.code))
            span = own
    here = place(analysis.items(path), offset)
    occurrence = analysis.names.at(source, offset)
    if occurrence:
        span = occurrence.span
        parts += _declaration(analysis, occurrence.symbol)
    elif here:
        found, at = _at(analysis, here, offset)
        if found:
            parts, span = [*found, *parts], at or span
    if not parts or span is None:
        return None
    text = "\n\n---\n\n".join(part for part in dict.fromkeys(parts) if part)
    markup = types.MarkupContent(types.MarkupKind.Markdown, text)
    return types.Hover(markup, lines.range(span.start, span.end))


def _declaration(analysis: Analysis, symbol: names.Symbol) -> list[str]:
    """A name's declaration as written, and its resolved values."""
    declared = analysis.names.declarations[symbol]
    span = declared.item.span
    path = analysis.paths.get(span.source)
    text = span.source.text[span.start : span.end].splitlines()
    shown = "\n".join(text[:MAX_LINES] + (["  …"] if text[MAX_LINES:] else []))
    where = ""
    if path and path != analysis.main:
        where = f"declared in `{path.name}`, line {span.line}"
    parts = [f"```etude\n{shown}\n```" + (f"\n\n{where}" if where else "")]
    facts: list[str] = []
    if symbol.kind == "stage":
        stages = values.stages(analysis.program, symbol.name, symbol.scope)
        if stages and analysis.program:
            facts = values.summary(stages[-1], analysis.program)
            if len(stages) > 1 and facts:
                facts.insert(0, f"{len(stages)} rounds; the last one:")
    elif symbol.kind == "dataset":
        facts = values.datasets_epochs(analysis.program, symbol.name)
    return [*parts, _list(facts)] if facts else parts


def _at(analysis: Analysis, here: Place, offset: int) -> tuple[list[str], Any]:
    """The text for a place that is not a name, and the span that it describes."""
    item, model = here.item, here.model
    match item:
        case s.Block() if _within(item.keyword, offset):
            return _block(item, here, analysis)
        case s.Block(kind=s.Word() as kind) if _within(kind, offset) and kind.name in r.STAGES:
            return [f"**`{kind.name}`** — {documentation.about(r.STAGES[kind.name])}"], kind.span
        case s.Assign() if item.path.span.start <= offset <= item.path.span.end:
            return _attribute(analysis, here, item.path.name), item.path.span
        case s.Every(word=word) | s.Keep(word=word) | s.Entry(word=s.Word() as word) if _within(
            word, offset
        ):
            return _attribute(analysis, here, word.name), word.span
        case s.Flag():
            return _attribute(analysis, here, item.word.name), item.span
        case s.Let() if _within(item.word, offset):
            return [], None
    word = getattr(item, "word", None)
    if isinstance(word, s.Word) and word.name == "allow":
        code = next((t.value for t in item if isinstance(t, s.Text)), "")
        codes = [t.name for t in item if isinstance(t, s.Word) and rules.known(t.name)]
        found = next((c for c in (*codes, code) if rules.known(c)), None)
        return ([rules.markdown(found)], item.span) if found else ([], None)
    for node in reversed(here.nodes):
        if isinstance(node, s.Number):
            return [_number(analysis, here, node)], node.span
        if isinstance(node, s.Text | s.Path) and model is r.Model:
            return _attribute(analysis, here, _name(item)), node.span
    name = _name(item)
    if here.nodes and name:
        return _attribute(analysis, here, name), here.nodes[0].span
    return [], None


def _within(word: s.Word, offset: int) -> bool:
    return word.span.start <= offset <= word.span.end


def _name(item: s.Item) -> str:
    return item.path.name if isinstance(item, s.Assign) else ""


def _block(item: s.Block, here: Place, analysis: Analysis) -> tuple[list[str], Any]:
    keyword = item.keyword.name
    model = r.block_model(keyword, item.kind.name if item.kind else None)
    if keyword == "gate":
        return _attribute(analysis, Place(here.blocks[:-1], (), item, ()), "gate"), item.head
    if keyword not in BLOCKS:
        return [], None
    text = f"`{BLOCKS[keyword]}`"
    if model:
        text += f" — {documentation.about(model)}"
    return [text], item.keyword.span


def _attribute(analysis: Analysis, here: Place, name: str) -> list[str]:
    """An attribute's documentation, and its resolved value in the stage around it."""
    model = here.model
    entry = documentation.documentation(model, name) if model else None
    parts = [documentation.markdown(name, entry)] if entry else []
    if here.stage and not here.groups:
        parts += _resolved(analysis, here, name)
    elif model is r.Model:
        parts += _model(analysis, here)
    return parts


def _resolved(analysis: Analysis, here: Place, name: str) -> list[str]:
    stages_here = values.stages(analysis.program, here.stage, here.scope)
    program = analysis.program
    if not stages_here or program is None:
        return []
    shown: dict[tuple[str, ...], list[str]] = {}
    for stage in stages_here:
        shown.setdefault(tuple(values.resolved(stage, name, program)), []).append(stage.name)
    parts = []
    for lines, stages in shown.items():
        if not lines:
            continue
        head = f"in `{stages[0]}`" if len(stages) == 1 else f"in `{stages[0]}` to `{stages[-1]}`"
        origin = analysis.origins.get((stages[0], name))
        text = _list(lines) + (f"\n\nfrom {_origin(origin)}" if origin else "")
        parts.append((f"{head}:\n\n" if len(stages_here) > 1 else "") + text)
    return parts


def _origin(origin: Origin) -> str:
    text, source = origin.text.removeprefix("from "), origin.source
    if source is None:
        return text
    return f"{text}, {'assumed' if source.assumed else 'cited'}: {source.text}"


def _model(analysis: Analysis, here: Place) -> list[str]:
    """The shape of a declared model, from the first stage that starts with it."""
    block, program = here.block, analysis.program
    if block is None or program is None or not block.labels:
        return []
    name = getattr(block.labels[0], "name", "")
    for stage in program.stages.values():
        if getattr(stage.spec, "model", None) == name and values.scheduled(stage):
            return [_list(values.resolved(stage, "model", program))]
    return []


def _number(analysis: Analysis, here: Place, number: s.Number) -> str:
    """A number exactly; the length of a stage also in the other unit."""
    name, model = _name(here.item), here.model
    unit = UNITS.get(number.unit.name, "") if number.unit else ""
    if model and not unit and number.suffix != "%" and here.nodes[0] is number:
        kind = r.kind_of(model, name)
        unit = next(iter(kind.units), "") if kind else ""
    exact = f"{plain(number.value)} {unit}".rstrip()
    if number.percent:
        exact = f"{plain(number.value * 100)}%"
    elif number.value >= 1000 and number.value.denominator == 1:
        exact += f" = {literal(number.value)}"
    lines = [exact]
    for stage in values.stages(analysis.program, here.stage, here.scope)[-1:]:
        if values.scheduled(stage) and here.stage:
            lines += _as_length(analysis, here, number, stage)
    entry = documentation.documentation(model, name) if model and name else None
    text = _list(lines) if len(lines) > 1 else lines[0]
    return text + (f"\n\n{documentation.markdown(name, entry)}" if entry else "")


def _as_length(analysis: Analysis, here: Place, number: s.Number, stage: Any) -> list[str]:
    try:
        quantity = LENGTH.read(number)
    except Invalid:
        quantity = None
    knob = _name(here.item)
    if knob in ("tokens", "steps", "epochs") and analysis.program:
        return values.resolved(stage, knob, analysis.program)
    if quantity is None:
        return []
    begin = 0
    bound = next((node for node in reversed(here.nodes) if isinstance(node, s.Bound)), None)
    segment = next(
        (node for node in reversed(here.nodes) if isinstance(node, s.Hold | s.Ramp)), None
    )
    if knob in values.KNOBS and segment is not None:
        schedule = here.nodes[0]
        index = [*schedule.once()].index(segment) if isinstance(schedule, s.Schedule) else 0
        reached = values.once(stage, knob)
        if index >= len(reached):
            return []
        relative = bound is None or bound.relative
        begin = reached[index][1].begin.step if relative else 0
    elif isinstance(here.item, s.Assign) and knob != "average":
        return []
    return [values.amount(stage, quantity, begin)]


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) if len(lines) > 1 else "".join(lines)
