"""Resolved values of a stage's attributes, in steps and tokens."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

from ..compiler import curves
from ..compiler.as_written import settings
from ..compiler.ids import StageId
from ..compiler.program import Resolved, ScheduledStage
from ..compiler.schedule.clock import Clock
from ..compiler.schedule.positions import START, Border, Length
from ..spec.quantity import Quantity, counted, measured, short
from ..spec.schedule import Segment

KNOBS = ("seq_len", "batch", "lr", "data", "rope_theta", "parallel")


class Piece(NamedTuple):
    """A segment of a schedule with where it begins and ends."""

    segment: Segment
    begin: Border
    end: Border


def stages(program: Resolved | None, name: str, scope: str) -> list[Any]:
    """The stage with a name; if it is in rounds, that of every round."""
    if program is None:
        return []
    if not scope:
        found = program.stages.get(name)
        return [found] if found else []
    every = ((StageId.parse(key), stage) for key, stage in program.stages.items())
    return [stage for of, stage in every if (of.rounds, of.own) == (scope, name)]


def scheduled(stage: Any) -> TypeGuard[ScheduledStage]:
    """Whether a stage trains and its schedules are known."""
    return isinstance(stage, ScheduledStage)


def length(stage: ScheduledStage) -> Length:
    """The length of the stage, as its spec gives it."""
    if stage.spec.tokens is not None:
        return Length("tokens", Fraction(stage.spec.tokens))
    if stage.spec.steps is not None:
        return Length("steps", Fraction(stage.spec.steps))
    unit = "steps" if stage.spec.padded else "tokens"
    return Length(unit, Fraction(stage.steps if unit == "steps" else stage.tokens))


class _Same:
    """A stage as a cache key: equal only to itself."""

    def __init__(self, stage: ScheduledStage) -> None:
        self.stage = stage

    def __hash__(self) -> int:
        return id(self.stage)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.stage is self.stage


def clock(stage: ScheduledStage) -> Clock:
    """The stage's clock, rebuilt from its batches and lengths."""
    return _clock(_Same(stage))


@lru_cache(maxsize=64)
def _clock(same: _Same) -> Clock:
    stage = same.stage
    sizes = {start: size for start, _, size in stage.lengths}
    batches = {piece.from_step: piece.sequences for piece in stage.batches}
    starts: list[tuple[int, int, int]] = []
    size = batch = tokens = 0
    for step in sorted(sizes.keys() | batches.keys()):
        size, batch = sizes.get(step, size), batches.get(step, batch)
        if starts:
            tokens += (step - starts[-1][0]) * starts[-1][2]
        starts.append((step, tokens, size * batch))
    return Clock(
        steps=stage.steps,
        tokens=stage.tokens,
        lengths=stage.lengths,
        batches=stage.batches,
        roundings=[],
        starts=starts,
        borders={},
        batch_at_end=stage.end.batch,
    )


def pieces(stage: ScheduledStage, knob: str) -> list[Piece]:
    """The segments of a knob's schedule that the stage reaches."""
    schedule = getattr(stage.spec, knob)
    if schedule is None:
        return []
    reached: list[Piece] = []
    begin, own = START, clock(stage)
    stop = Border(own.steps, own.tokens, Fraction(own.steps), Fraction(own.tokens))
    for segment in schedule.segments:
        if begin.step >= own.steps:
            break
        wish = length(stage).boundary(segment, begin)
        end = own.border(wish) if wish else stop
        reached.append(Piece(segment, begin, end))
        begin = end
    return reached


def once(stage: ScheduledStage, knob: str) -> list[tuple[int, Piece]]:
    """The segments that the stage reaches, those of a `repeat` in their first turn, each with its
    place among all."""
    return [
        (place, piece)
        for place, piece in enumerate(pieces(stage, knob))
        if not piece.segment.turn or piece.segment.turn.number == 0
    ]


def amount(stage: ScheduledStage, quantity: Quantity, begin: int) -> str:
    """A length that begins at a step, in the other unit: `8000 steps` are `33.6B tokens`."""
    own = clock(stage)
    position = length(stage).of(quantity)
    offset = begin if position.unit == "steps" else own.tokens_before(begin)
    border = own.border(type(position)(position.unit, position.value + offset))
    steps = border.step - begin
    tokens = own.tokens_before(border.step) - own.tokens_before(begin)
    if quantity.unit == "steps":
        return f"{short(tokens)} tokens"
    if quantity.unit == "%":
        return f"{counted(steps, 'steps')}, {short(tokens)} tokens"
    return counted(steps, "steps")


def steps_and_tokens(stage: ScheduledStage) -> str:
    """The length of a stage in both units."""
    exact, rounded = f"{stage.tokens:,}", short(stage.tokens)
    more = f" ({rounded})" if rounded != exact else ""
    return f"{counted(stage.steps, 'steps')}, {exact} tokens{more}"


def ramp_end(stage: ScheduledStage, place: int) -> float | None:
    """The learning rate at which a segment's ramp ends if that is not the written end: its curve is
    longer than the segment."""
    if place >= len(stage.lr):
        return None
    piece = stage.lr[place]
    if piece.shape == "hold":
        return None
    own = clock(stage)
    at = piece.to_step if piece.clock == "steps" else own.tokens_before(piece.to_step)
    share = (at - piece.origin) / piece.length
    return curves.value(piece.shape, piece.start, piece.end, share)


def epochs(stage: ScheduledStage, program: Resolved) -> dict[str, float]:
    """The number of epochs over each source with a declared size."""
    parts: dict[str, Fraction] = {}
    for part in stage.mixture:
        total = sum(part.weights.values())
        if stage.spec.padded:
            size = stage.sequences_before(part.to_step) - stage.sequences_before(part.from_step)
        else:
            size = stage.tokens_before(part.to_step) - stage.tokens_before(part.from_step)
        for name, weight in part.weights.items():
            parts[name] = parts.get(name, Fraction(0)) + Fraction(size * weight, total)
    times = {}
    for name, seen in parts.items():
        dataset = program.recipe.datasets.get(name)
        declared = dataset and dataset.declared(stage.spec.counts)
        if declared:
            times[name] = float(seen / declared)
    return times


def resolved(stage: Any, attribute: str, program: Resolved) -> list[str]:
    """Lines with the resolved value of a stage's attribute; empty if there is nothing to add."""
    if not scheduled(stage):
        return []
    if attribute in _RESOLVED:
        return _RESOLVED[attribute](stage)
    if attribute in ("tokens", "steps", "epochs"):
        return [steps_and_tokens(stage), *_epochs(stage, program)]
    if attribute == "data":
        return _some(_shares(stage)) + _epochs(stage, program)
    if attribute in ("parallel", "rope_theta"):
        return [
            _at(stage, p.begin.step, p.end.step, _end(stage, p.segment, attribute))
            for p in pieces(stage, attribute)
        ] or [_end(stage, None, attribute)]
    value = stage.settings.get(attribute, getattr(stage, attribute, None))
    return [f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []


def _lengths(stage: ScheduledStage) -> list[str]:
    return [_at(stage, begin, end, f"{short(size)} tokens") for begin, end, size in stage.lengths]


def _rates(stage: ScheduledStage) -> list[str]:
    lines = []
    for place, piece in enumerate(stage.lr):
        text = f"{piece.start:.4g}"
        if piece.shape != "hold":
            text += f" → {ramp_end(stage, place):.4g} {piece.shape}"
        lines.append(_at(stage, piece.from_step, piece.to_step, text))
    return lines


def _shares(stage: ScheduledStage) -> list[str]:
    lines = []
    for part in stage.mixture:
        total = sum(part.weights.values())
        shares = (f"{name} {100 * weight / total:.4g}%" for name, weight in part.weights.items())
        lines.append(_at(stage, part.from_step, part.to_step, ", ".join(shares)))
    return lines


def _model(stage: ScheduledStage) -> list[str]:
    model = stage.model
    return [
        f"{counted(model.layers, 'layers')}, dim {model.dim}, heads {model.heads} "
        f"({model.kv_heads} key-value), ffn {model.ffn}, vocabulary {model.vocab:,}, "
        f"RoPE base {model.rope_theta:g}"
    ]


def _parent(stage: ScheduledStage) -> list[str]:
    return [f"continues from `{stage.parent}`"] if stage.parent else []


def _optimizer(stage: ScheduledStage) -> list[str]:
    state = "carried over" if stage.carries else "fresh"
    return [f"{settings(stage.optimizer)}, state {state}"]


def summary(stage: Any, program: Resolved) -> list[str]:
    """Values of a stage that trains, given and inherited."""
    if not scheduled(stage):
        return []
    lines = resolved(stage, "steps", program)[:1]
    for knob in KNOBS:
        values = resolved(stage, knob, program)
        inherited = stage.origins.get(knob, "spec")
        if inherited != "spec" and values and values != ["{}"]:
            lines.append(f"{knob}: {values[-1]} ({inherited})")
    return lines


def datasets_epochs(program: Resolved | None, name: str) -> list[str]:
    """The number of epochs of each stage over a data set whose size is declared."""
    lines = []
    for stage in program.stages.values() if program else ():
        if scheduled(stage) and program:
            times = epochs(stage, program).get(name)
            if times is not None:
                lines.append(f"{stage.name}: {measured(times)} epochs")
    return lines


def _epochs(stage: ScheduledStage, program: Resolved) -> list[str]:
    passes = epochs(stage, program)
    if not passes:
        return []
    return ["epochs: " + ", ".join(f"{name} {measured(times)}" for name, times in passes.items())]


def _end(stage: ScheduledStage, segment: Segment | None, attribute: str) -> str:
    value = segment.end if segment and not hasattr(segment.end, "factors") else None
    if value is None:
        value = getattr(stage.end, attribute)
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "data parallel"
    return f"{float(value):g}"


def _batches(stage: ScheduledStage) -> list[str]:
    unit = stage.spec.counts
    starts = clock(stage).starts
    ends = [step for step, _, _ in starts[1:]] + [stage.steps]
    lines = []
    for (step, _, pace), end in zip(starts, ends, strict=True):
        size = next(size for start, _, size in reversed(stage.lengths) if start <= step)
        what = f"{pace // size:,} {unit} of {short(size)}: {short(pace)} tokens a step"
        lines.append(_at(stage, step, end, what))
    return lines


def _at(stage: ScheduledStage, begin: int, end: int, text: str) -> str:
    if begin == 0 and end >= stage.steps:
        return text
    tokens = stage.tokens_before(end) - stage.tokens_before(begin)
    return f"{text} — steps {begin:,} to {end:,} ({short(tokens)} tokens)"


def _some(lines: Iterable[str]) -> list[str]:
    """Shortens a long list of lines: the first ones, and the last."""
    lines = list(lines)
    if len(lines) <= 8:
        return lines
    return [*lines[:4], f"… {len(lines) - 6} more …", *lines[-2:]]


_RESOLVED: dict[str, Callable[[ScheduledStage], list[str]]] = {
    "seq_len": _lengths,
    "batch": lambda stage: _some(_batches(stage)),
    "lr": _rates,
    "model": _model,
    "from": _parent,
    "optimizer": _optimizer,
}
"""Attribute → the lines with its resolved value, if they need nothing but the stage."""
