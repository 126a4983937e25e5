"""Evaluations: measures of a stage's result."""

from typing import TYPE_CHECKING, Any

from ...spec.schema import recipe as r
from ..program import StageOfOne
from ..resolve.scope import Scope
from .kind import Kind
from .measuring import SHOWN, measured
from .sources import source_of

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class EvaluateStage(StageOfOne):
    """An evaluate stage."""

    spec: r.Evaluate
    dialog: dict[str, Any] | None


def resolve(spec: r.Evaluate, scope: Scope) -> EvaluateStage | None:
    """The stage with its names resolved; None after reporting."""
    source = source_of(spec, scope, "has no model to evaluate")
    if source is None:
        return None
    stage = scope.with_weights(source, spec.at("from"))
    if stage is None:
        return None
    if all(getattr(spec, name) is None for name in r.MEASURES):
        scope.error(
            "E422",
            f"the stage `{spec.name}` evaluates nothing",
            spec.at(),
            "write `loss = [DATASET]`, `needle = { … }`, `suites = { … }`, `judge = …`, "
            "`verify = [VERIFIER]`, or "
            "`accuracy = [DATASET]` of a reward model",
        )
    trained = scope.trained(stage)
    dialog = measured(spec, scope, trained)
    return EvaluateStage(name=spec.name, spec=spec, of=source, dialog=dialog, model=trained.model)


def lower(stage: EvaluateStage, to: "Lowering") -> None:
    """Adds the job that measures."""
    from ..lowering.measures import stage_measures

    trained = to.program.trained(stage.name)
    measures = stage_measures(stage.spec, stage.dialog, trained, to.jobs)
    to.outputs[stage.name] = to.models.evaluation(
        to.models.result(stage.of),
        measures,
        id=stage.name,
        stage=stage.name,
        judge=stage.spec.judge,
        dialog=stage.dialog,
    )


EVALUATE = Kind(resolve=resolve, lower=lower, shown=SHOWN)
