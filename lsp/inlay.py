"""Inlay hints: steps of a bound, epochs of a source, ends of ramps."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lsprotocol import types

from ..compiler.program import ScheduledStage
from ..spec import syntax as s
from ..spec.quantity import counted, measured
from ..spec.schema.convert import Invalid
from ..spec.schema.number_kinds import LENGTH
from . import values
from .project import Analysis


def hints(analysis: Analysis, path: Path, start: int, end: int) -> list[types.InlayHint]:
    """The hints in a range of a file; none if the spec has errors."""
    if analysis.program is None:
        return []
    lines = analysis.lines(path)
    inlays = []
    for block, scope in _stages(analysis.items(path), ""):
        if block.span.end < start or block.span.start > end:
            continue
        label = block.labels[0] if block.labels else None
        own = values.stages(analysis.program, getattr(label, "name", ""), scope)
        shown: list[dict[int, str]] = [
            dict(_of_stage(block, stage, analysis)) for stage in own if values.scheduled(stage)
        ]
        for offset in shown[0] if shown else ():
            if start <= offset <= end:
                texts = list(dict.fromkeys(of[offset] for of in shown if offset in of))
                text = texts[0] if len(texts) == 1 else f"{texts[0]} … {texts[-1]}"
                inlays.append(types.InlayHint(lines.position(offset), text, padding_left=True))
    return inlays


def _stages(items: Iterable[s.Item], scope: str) -> Iterator[tuple[s.Block, str]]:
    for item in items:
        if not isinstance(item, s.Block):
            continue
        if item.keyword.name == "stage":
            yield item, scope
        elif item.keyword.name == "rounds" and item.labels:
            yield from _stages(item.items, getattr(item.labels[0], "name", ""))


def _of_stage(
    block: s.Block, stage: ScheduledStage, analysis: Analysis
) -> Iterator[tuple[int, str]]:
    """Offset and text of the hints in a stage."""
    assert analysis.program
    epochs = values.epochs(stage, analysis.program)
    for item in block.items:
        if not isinstance(item, s.Assign):
            continue
        name = item.path.name
        if name == "tokens" and isinstance(item.value, s.Number):
            yield item.value.span.end, f"= {counted(stage.steps, 'steps')}"
        elif name in ("steps", "epochs") and isinstance(item.value, s.Number):
            yield item.value.span.end, f"= {values.steps_and_tokens(stage)}"
        elif name in values.KNOBS and isinstance(item.value, s.Schedule):
            yield from _bounds(item.value, name, stage)
        if name == "data":
            yield from _epochs(item.value, epochs)


def _bounds(schedule: s.Schedule, knob: str, stage: ScheduledStage) -> Iterator[tuple[int, str]]:
    reached = values.once(stage, knob)
    for segment, (place, piece) in zip(schedule.once(), reached, strict=False):
        for number, begin in _lengths(segment, piece.begin.step):
            try:
                quantity = LENGTH.read(number)
            except Invalid:
                continue
            yield number.span.end, f"= {values.amount(stage, quantity, begin)}"
        if isinstance(segment, s.Ramp) and knob == "lr":
            yield from _end(segment, place, stage)


def _lengths(segment: s.Hold | s.Ramp, begin: int) -> Iterator[tuple[s.Number, int]]:
    """The lengths in a segment, each with the step that it counts from."""
    if isinstance(segment, s.Ramp) and isinstance(segment.over, s.Number):
        yield segment.over, begin
    if segment.bound and isinstance(segment.bound.quantity, s.Number):
        yield segment.bound.quantity, begin if segment.bound.relative else 0


def _end(segment: s.Ramp, place: int, stage: ScheduledStage) -> Iterator[tuple[int, str]]:
    """The value at which a ramp ends, unless the text says it and the ramp reaches it."""
    end = values.ramp_end(stage, place)
    if end is None:
        return
    written = segment.end.value if isinstance(segment.end, s.Number) else None
    if written is None or f"{float(written):.4g}" != f"{end:.4g}":
        yield segment.end.span.end, f"ends at {end:.4g}"


def _epochs(value: Any, epochs: dict[str, float]) -> Iterator[tuple[int, str]]:
    """After the first mention of each source, its number of epochs."""
    ahead = dict(epochs)

    def said(name: str, end: int) -> Iterator[tuple[int, str]]:
        if name in ahead:
            yield end, f"{measured(ahead.pop(name))} epochs"

    parts = [value]
    while parts:
        part = parts.pop(0)
        match part:
            case s.Path() | s.Indexed():
                yield from said(part.name, part.span.end)
            case s.Braces():
                for entry in part.items:
                    if isinstance(entry, s.Entry):
                        name = entry.word.name
                        yield from said(name, entry.span.end)
            case s.Schedule():
                for of in part.once():
                    parts += [of.value] if isinstance(of, s.Hold) else [of.start, of.end]
