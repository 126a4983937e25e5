"""Evaluations inside training: how many a job makes, and what each takes.

An evaluation reads with the weights, the micro-batches and the rows of training, and has no
backward pass, so it needs no more memory than a step.
"""

from typing import NamedTuple

from ..program import ModelStage, ScheduledStage, Segment
from ..values import Reading
from .hardware import gpu
from .reading import Reader, Rows, reading


class Evaluations(NamedTuple):
    """The evaluations of a job.

    Attributes:
        times: how many there are.
        each: what one takes, at most; None: the device is unknown.
    """

    times: int = 0
    each: Reading | None = None

    @property
    def seconds(self) -> float:
        """The time of all, at most; 0 if it is unknown."""
        return self.times * ((self.each and self.each.seconds) or 0.0)


def evaluations(stage: ModelStage, segment: Segment) -> Evaluations:
    """The evaluations in a segment of a stage: after every so many steps, and after the last."""
    asked = stage.spec.evaluate if isinstance(stage, ScheduledStage) else None
    if asked is None or not isinstance(stage, ScheduledStage):
        return Evaluations()
    times = segment.to_step // asked.every - segment.from_step // asked.every
    times += segment.to_step >= stage.steps and segment.to_step % asked.every > 0
    known = gpu(stage.hardware.device)
    if known is None:
        return Evaluations(times)
    of = Reader(
        model=stage.model.main,
        resources=segment.resources,
        seq_len=segment.seq_len,
        micro_batch=segment.micro_batch,
        precision="fp32" if stage.precision.kind == "fp32" else "bf16",
        scores=not stage.spec.writes_text,
    )
    rows = [Rows(-(-asked.tokens // segment.seq_len), segment.seq_len) for _ in asked.loss]
    return Evaluations(times, reading(of, known, rows))
