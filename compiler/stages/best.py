"""Choices: the best of several stages by one measure."""

from typing import TYPE_CHECKING, Any

from ...spec.schema import recipe as r
from ..program import StageOfMany
from ..resolve.scope import Scope
from .kind import Kind
from .measuring import SHOWN, measured
from .sources import alike

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class BestStage(StageOfMany):
    """A best stage."""

    spec: r.Best
    dialog: dict[str, Any] | None


def resolve(spec: r.Best, scope: Scope) -> BestStage | None:
    """The stage with its names resolved; None after reporting."""
    first = alike(spec, scope, "only models of the same shape can be compared")
    if first is None:
        return None
    given = [name for name in r.MEASURES if getattr(spec, name) is not None]
    many = [name for name in ("loss", "suites", "verify") if len(getattr(spec, name) or []) > 1]
    if len(given) != 1 or many:
        scope.error(
            "E520",
            f"`{spec.name}` needs exactly one measure",
            spec.at(given[-1]) if given else spec.at(),
            'write `loss = [DATASET]`, `needle = { … }` or `suites = { math ["gsm8k"] }`',
        )
        return None
    dialog = measured(spec, scope, first)
    return BestStage(name=spec.name, spec=spec, of=spec.of, dialog=dialog, model=first.model)


def lower(stage: BestStage, to: "Lowering") -> None:
    """Adds the job that measures and chooses."""
    from ..lowering.measures import stage_measures
    from ..plan.plan import BestJob

    trained = to.program.trained(stage.name)
    (measure,) = stage_measures(stage.spec, stage.dialog, trained, to.jobs)
    found = to.models.measured(
        [to.models.result(name) for name in stage.of],
        [measure],
        id=stage.name,
        stage=stage.name,
        judge=stage.spec.judge,
        dialog=stage.dialog,
    )
    inputs = found.inputs | {f"of.{n}": to.jobs.result[name] for n, name in enumerate(stage.of)}
    content = {
        "of": stage.of,
        "measure": measure,
        "higher": measure.metric != "loss",
        **found.content,
    }
    key = to.jobs.add(BestJob, content, inputs, id=stage.name, stage=stage.name)
    to.joined(stage, key)


BEST = Kind(resolve=resolve, lower=lower, shown=("of", *SHOWN))
