"""Checkpoint stages: the weights at a point in a stage, as a model that others continue from.

The stage is split into two segments there, so its job ends with a checkpoint like any other.
"""

from typing import TYPE_CHECKING

from ...spec.schema import recipe as r
from ..program import CheckpointStage, ScheduledCheckpoint, TrainStage
from ..resolve.scope import Scope
from .kind import Kind
from .sources import source_of

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


def resolve(spec: r.Checkpoint, scope: Scope) -> CheckpointStage | None:
    """The stage with its names resolved; None after reporting."""
    source = source_of(spec, scope, "has no stage to take a checkpoint from")
    if source is None:
        return None
    stage = scope.with_weights(source, spec.at("from"))
    if stage is None:
        return None
    if not isinstance(stage, TrainStage) or stage.spec.averages:
        scope.error(
            "E454",
            f"`{source}` is a mean of weights: it has no checkpoints inside"
            if isinstance(stage, TrainStage)
            else f"`{source}` does not train: it has no checkpoints inside",
            spec.at("from") or spec.at(),
            "name a stage that trains, without `average` and `ema`",
        )
        return None
    return CheckpointStage(name=spec.name, spec=spec, of=source, model=stage.model)


def lower(stage: ScheduledCheckpoint, to: "Lowering") -> None:
    """Notes the result: that of the train job that ends there."""
    to.training.checkpoint(stage)
    to.continued(stage.name, ())


CHECKPOINT = Kind(resolve=resolve, lower=lower)
