"""A stage's length and clock, used to lay out the knobs that do not set its pace."""

from typing import Any, Literal

from ...spec.findings.diagnostics import Report
from ...spec.schedule import Segment
from .clock import Clock, borders
from .positions import Border, Length


class Course:
    """The length and the clock of a stage, and the positions of its knobs' segments.

    Attributes:
        begins: for the knobs laid out so far, knob → the first step of each segment.
    """

    def __init__(self, length: Length, clock: Clock, report: Report) -> None:
        self.length = length
        self.clock = clock
        self.report = report
        self.begins = dict(clock.begins)

    def borders(self, knob: str, segments: list[Segment]) -> list[tuple[Segment, Border, Border]]:
        """Each segment with its beginning and its end; reports errors in them."""
        found = borders(segments, self.length, self.clock, knob, self.report)
        self.begins[knob] = [begin.step for _, begin, _ in found]
        return found

    def holds(self, knob: str, segments: list[Segment]) -> list[tuple[int, Any]]:
        """The first step of each value of a knob without ramps, and the value."""
        return [(begin.step, segment.end) for segment, begin, _ in self.borders(knob, segments)]

    def over(
        self, segment: Segment, begin: Border, end: Border
    ) -> tuple[Literal["steps", "tokens"], int, int]:
        """The clock of a ramp's curve, and its origin and length there."""
        if segment.over:
            over = self.length.of(segment.over)
            unit, size = over.unit, max(int(over.value), 1)
        else:
            bound = segment.bound.quantity.unit if segment.bound else "%"
            unit = self.length.unit if bound == "%" else bound
            size = end.tokens - begin.tokens if unit == "tokens" else end.step - begin.step
        if unit == "tokens":
            return "tokens", begin.tokens, size
        return "steps", begin.step, size


def at(changes: list[tuple[int, Any]], step: int) -> Any:
    """The value in force at a step.

    Args:
        changes: steps, ascending from 0, and the values in force from there.
    """
    return next(value for start, value in reversed(changes) if start <= step)
