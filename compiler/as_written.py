"""Values in spec notation."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import zip_longest
from typing import Any

from ..spec import schedule as sc
from ..spec.quantity import Quantity, amount, counted, measured, plain, short
from ..spec.record import Record, fields
from ..spec.schema import recipe as r
from .values import Value

__all__ = [
    "amount",
    "at_most",
    "counted",
    "in_bytes",
    "in_full",
    "measured",
    "settings",
    "written",
    "written_batch",
]
NOTHING = "{ }"
"""A placement without degrees."""
_DEFAULTS: dict[str, Any] = {
    "fields": None,
    "bad_lines": None,
    "split": None,
    "kind": "documents",
    "skip": 0,
    "bytes": False,
    "awaited": False,
    "nodes": 1,
    "long": "refuse",
}
"""Attributes of blocks that are never shown, and those not shown if they have this value."""


def at_most(*counted: str) -> str:
    """The prefix for the tokens of stages whose batches count this: but for sequences they are an
    upper bound, since each row is as long as what it holds."""
    return "≤ " if any(each != r.Training.rows for each in counted) else ""


def in_full(block: r.Declaration) -> str:
    """The attributes of a block in one line."""
    shown = []
    for name, of in r.attributes(type(block)).items():
        value = getattr(block, of.field)
        if value is None or (name in _DEFAULTS and _DEFAULTS[name] in (None, value)):
            continue
        shown.append(name if value is True else f"{name} {written(value)}")
    return ", ".join(shown)


def settings(of: r.Optimizer) -> str:
    """The settings of an optimizer; those that are words only if they are not the default."""
    shown = [of.kind]
    lacking = r.LACKING.get(of.kind, ())
    for name, attribute in r.attributes(type(of)).items():
        value = None if name in lacking else getattr(of, attribute.field)
        if value is not None and (not isinstance(value, str) or value != attribute.default):
            text = f"{value:g}" if isinstance(value, float) else value
            if isinstance(value, sc.Schedule):
                text = written(value)
            shown.append(f"{name} {list(value) if isinstance(value, tuple) else text}")
    return ", ".join(shown)


def written_batch(value: sc.Schedule | None, spec: r.Training) -> str:
    """A batch, roughly as a spec writes it: batches of records are sequences inside."""
    text = written(value)
    return re.sub(r"\bseqs?\b", spec.counts, text) if spec.padded else text


def written(value: Any) -> str:
    """A value of an attribute, roughly as a spec writes it; "—" for none."""
    match value:
        case None:
            return "—"
        case bool():
            return str(value).lower()
        case sc.Schedule():
            return " then ".join(_pieces(value.segments))
        case sc.Last():
            factors = ", ".join(f"{name} {_number(by)}x" for name, by in value.factors)
            return f"last with {{ {factors} }}" if factors else "last"
        case sc.Auto():
            return "auto"
        case Quantity():
            return _quantity(value)
        case r.TokenizerTraining():
            return f"{counted(value.vocab, 'tokens')} on {', '.join(value.on)}"
        case r.Needle():
            lengths = f"lengths {written(value.lengths)}, " if value.lengths else ""
            return (
                f"{lengths}{counted(value.depths, 'depths')}, {counted(value.samples, 'samples')}"
            )
        case r.Polyak():
            over = f" over {_quantity(value.over)}" if value.over else ""
            return f"polyak every {counted(value.every, 'steps')}{over}"
        case r.Gate():
            return _gate(value)
        case r.Precision() | r.Evaluation():
            return value.shown()
        case r.Declaration():
            return in_full(value)
        case Value():
            return written(value.as_dict())
        case Record():
            return ", ".join(f"{name} {written(getattr(value, name))}" for name in fields(value))
        case Fraction() | float() | int():
            return _number(value)
        case dict():
            return ", ".join(f"{name} {written(item)}" for name, item in value.items())
        case list() | tuple():
            return ", ".join(map(written, value))
        case _:
            return str(value)


def _number(value: Fraction | float | int) -> str:
    return plain(value) if value == int(value) else f"{float(value):.6g}"


def _quantity(value: Quantity) -> str:
    return str(value) if value.text or value.value < 1000 else f"{short(value.value)} {value.unit}"


def _pieces(segments: Sequence[sc.Segment]) -> Iterator[str]:
    """The segments, those of a `repeat` once."""
    opened: list[str] = []
    for segment, following in zip_longest(segments, segments[1:]):
        turn, after = segment.turn, following and following.turn
        if turn is None:
            yield _segment(segment)
        elif turn.number == 0:
            opened.append(_segment(segment))
            if after is None or after.number or not after.place:
                yield f"repeat {counted(turn.of, 'times')} {{ {' then '.join(opened)} }}"
                opened = []


def _segment(segment: sc.Segment) -> str:
    def side(value: Any) -> str:
        if isinstance(value, dict) and len(value) > 1:
            return "{ " + ", ".join(f"{n} {_share(share)}" for n, share in value.items()) + " }"
        if isinstance(value, dict):
            return next(
                (
                    n if share == 1 and isinstance(share, Fraction) else f"{{ {n} {share} }}"
                    for n, share in value.items()
                ),
                NOTHING,
            )
        return written(value)

    text = side(segment.end)
    if segment.shape != "hold":
        start = f"{side(segment.start)} " if segment.start is not None else ""
        shape = "" if segment.shape == "linear" else f" {segment.shape}"
        text = f"{start}-> {text}{shape}"
    if segment.levels:
        text += f" in levels of {_quantity(segment.levels)}"
    if segment.over:
        text += f" over {_quantity(segment.over)}"
    if segment.bound:
        word = "for" if segment.bound.relative else "until"
        text += f" {word} {_quantity(segment.bound.quantity)}"
    return text


def _share(share: Any) -> str:
    return f"{plain(share * 100)}%" if isinstance(share, Fraction) else str(share)


def _gate(gate: r.Gate) -> str:
    parts = []
    for each in gate.requirements:
        name = each.measure + (f"({each.argument})" if each.argument else "")
        percent = each.measure == "needle" or each.of_start
        value = f"{plain(each.value * 100)}%" if percent else plain(each.value)
        parts.append(f"{name} {each.op} {value}" + (" of start" if each.of_start else ""))
    if gate.extend:
        parts.append(f"extend {_quantity(gate.extend)} at most {counted(gate.attempts, 'times')}")
    return ", ".join([*parts, written(gate.needle)])


def in_bytes(number: float) -> str:
    """A number of bytes, in a suitable unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000:
            return f"{measured(number)} {unit}"
        number /= 1024
    return f"{measured(number)} TiB"
