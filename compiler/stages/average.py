"""Averages: the mean of the weights of several stages."""

from fractions import Fraction
from typing import TYPE_CHECKING

from ...spec.quantity import counted
from ...spec.schema import recipe as r
from ..program import StageOfMany
from ..resolve.scope import Scope
from .kind import Kind
from .sources import alike

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class AverageStage(StageOfMany):
    """An average stage; its weights add up to 1."""

    spec: r.Average
    weights: list[Fraction]


def resolve(spec: r.Average, scope: Scope) -> AverageStage | None:
    """The stage with its names resolved; None after reporting."""
    first = alike(spec, scope, "only weights of the same shape can be averaged")
    if first is None:
        return None
    weights = [Fraction(str(w)) for w in spec.weights or [1.0] * len(spec.of)]
    if len(weights) != len(spec.of) or sum(weights) <= 0 or min(weights) < 0:
        scope.error(
            "E421",
            f"this average needs {counted(len(spec.of), 'weights')}, none below 0",
            spec.at("weights"),
        )
        return None
    total = sum(weights)
    shares = [weight / total for weight in weights]
    return AverageStage(name=spec.name, spec=spec, of=spec.of, weights=shares, model=first.model)


def lower(stage: AverageStage, to: "Lowering") -> None:
    """Adds the job that averages."""
    from ..plan.plan import AverageJob

    content = {
        "model": to.models.shape(to.program.trained(stage.name)),
        "weights": [str(w) for w in stage.weights],
    }
    inputs = {f"of.{i}": to.jobs.result[name] for i, name in enumerate(stage.of)}
    key = to.jobs.add(AverageJob, content, inputs, id=stage.name, stage=stage.name)
    to.joined(stage, key)


AVERAGE = Kind(resolve=resolve, lower=lower)
