"""Checkpoint stages: the weights of a stage on its way, as a model that others continue from.

The stage is cut into two segments there, so that its job ends with a checkpoint like any other.
"""

from ...spec.record import replace
from ...spec.schema import recipe as r
from ..program import AnyStage, CheckpointStage, TrainStage
from .graph import parents
from .scope import Scope


def checkpoint(spec: r.Checkpoint, scope: Scope) -> CheckpointStage | None:
    """The stage with its names resolved, or None after reporting."""
    source = next(iter(parents(spec, scope)), None)
    if source is None:
        scope.error(
            "E405",
            f"the stage `{spec.name}` is a checkpoint of nothing",
            spec.at(),
            "write `from = …`",
        )
        return None
    stage = scope.with_weights(source, spec.at("from"))
    if stage is None:
        return None
    if not isinstance(stage, TrainStage) or stage.spec.average:
        scope.error(
            "E454",
            f"`{source}` is a mean of weights: it has none on the way"
            if isinstance(stage, TrainStage)
            else f"`{source}` does not train: it has no weights on the way",
            spec.at("from") or spec.at(),
            "name a stage that trains, without `average`",
        )
        return None
    return CheckpointStage(name=spec.name, spec=spec, of=source, model=stage.model)


def before(checkpoint: CheckpointStage, stage: AnyStage) -> TrainStage | None:
    """The part of a scheduled stage up to a checkpoint of it; None where it has no such place."""
    if not isinstance(stage, TrainStage) or checkpoint.name not in stage.checkpoints:
        return None
    step, state = stage.checkpoints[checkpoint.name]
    return replace(
        stage,
        steps=step,
        tokens=stage.tokens_before(step),
        lengths=[(a, min(b, step), length) for a, b, length in stage.lengths if a < step],
        batches=[
            replace(b, to_step=min(b.to_step, step)) for b in stage.batches if b.from_step < step
        ],
        lr=[replace(p, to_step=min(p.to_step, step)) for p in stage.lr if p.from_step < step],
        mixture=[
            replace(m, to_step=min(m.to_step, step)) for m in stage.mixture if m.from_step < step
        ],
        segments=[each for each in stage.segments if each.to_step <= step],
        end=state,
        checkpoints={},
    )
