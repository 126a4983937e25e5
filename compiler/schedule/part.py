"""The part of a stage up to one of its checkpoints, from which other stages continue."""

from ...spec.record import fields, replace
from ..program import CheckpointStage, ScheduledCheckpoint, ScheduledStage, State


def at_checkpoint(checkpoint: CheckpointStage, stage: ScheduledStage) -> ScheduledCheckpoint:
    """A checkpoint of a stage, with the part of the stage before it."""
    known = {name: getattr(checkpoint, name) for name in fields(CheckpointStage)}
    part = _before(stage, *stage.checkpoints[checkpoint.name])
    return ScheduledCheckpoint(**known, whole=stage, part=part)


def _before(stage: ScheduledStage, step: int, state: State) -> ScheduledStage:
    return replace(
        stage,
        steps=step,
        tokens=stage.tokens_before(step),
        lengths=[(a, min(b, step), length) for a, b, length in stage.lengths if a < step],
        batches=[
            replace(b, to_step=min(b.to_step, step)) for b in stage.batches if b.from_step < step
        ],
        lr=[replace(p, to_step=min(p.to_step, step)) for p in stage.lr if p.from_step < step],
        changing={
            name: [replace(p, to_step=min(p.to_step, step)) for p in pieces if p.from_step < step]
            for name, pieces in stage.changing.items()
        },
        mixture=[
            replace(m, to_step=min(m.to_step, step)) for m in stage.mixture if m.from_step < step
        ],
        segments=[each for each in stage.segments if each.to_step <= step],
        end=state,
        checkpoints={},
    )
