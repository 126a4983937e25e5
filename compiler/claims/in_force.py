"""The values in force at a point in a stage, for claims such as a rate at a step."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from ...spec.quantity import Quantity
from ..program import ScheduledStage


def step_at(stage: ScheduledStage, moment: Quantity) -> int | None:
    """The step that begins at a point in the stage: points are rounded to the nearest step, the
    later of two.

    None if the stage ends before it.

    Args:
        moment: in steps or tokens of the stage, or as a share of its steps.
    """
    if moment.unit == "tokens":
        if moment.value > stage.tokens:
            return None
        after = bisect_left(range(stage.steps + 1), moment.value, key=stage.tokens_before)
        if after == 0:
            return 0
        low, high = stage.tokens_before(after - 1), stage.tokens_before(after)
        return after if high - moment.value <= moment.value - low else after - 1
    exact = moment.value * stage.steps if moment.unit == "%" else moment.value
    step = int(exact + Fraction(1, 2))
    return step if step <= stage.steps else None


def _in_force(pieces: Iterable[Any], step: int) -> Any:
    """The piece that contains the step; at the end of the stage, the last one."""
    return [piece for piece in pieces if piece.from_step <= step][-1]


def _sequences(stage: ScheduledStage, step: int) -> int:
    return _in_force(stage.batches, step).sequences


def _seq_len(stage: ScheduledStage, step: int) -> int:
    return _in_force(stage.segments, step).seq_len


MOMENTS: dict[str, Callable[[ScheduledStage, int], float]] = {
    "lr": lambda stage, step: _in_force(stage.lr, step).rate(step, stage.tokens_before),
    "batch": lambda stage, step: _sequences(stage, step) * _seq_len(stage, step),
    "sequences": _sequences,
    "seq_len": _seq_len,
    "rope_theta": lambda stage, step: _in_force(stage.segments, step).rope_theta,
    "steps": lambda stage, step: step,
    "tokens": lambda stage, step: stage.tokens_before(step),
}
"""Figure → its value at the beginning of a step; at the end of a stage, after its last step."""
