"""Ensembles: several reward models that judge as one."""

from typing import TYPE_CHECKING

from ...spec.schema import recipe as r
from ..program import StageOfMany
from ..resolve.scope import Scope
from .kind import Kind

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering

_PENALIZED = ("minus_std", "minus_variance")


class EnsembleStage(StageOfMany):
    """An ensemble stage, which has no job of its own: the jobs of its judgments are its uses'."""

    spec: r.Ensemble


def resolve(spec: r.Ensemble, scope: Scope) -> EnsembleStage | None:
    """The stage with its names resolved; None after reporting."""
    members = [scope.reward_model(name, spec.at("of")) for name in spec.of]
    if len({*spec.of}) < max(len(spec.of), 2):
        again = len({*spec.of}) < len(spec.of)
        scope.error(
            "E596",
            f"the ensemble `{spec.name}` "
            + ("names a reward model twice" if again else "has only one reward model"),
            spec.at("of"),
            "name two or more, each once; train several from other seeds or on other data",
        )
    if any(each is not None and each.spec.judges for each in members):
        scope.error(
            "E596",
            f"the ensemble `{spec.name}` has another ensemble in it",
            spec.at("of"),
            "name the reward models of both",
        )
        return None
    if spec.penalty is not None and spec.combine not in _PENALIZED:
        scope.error(
            "E522",
            f"`penalty` has no effect with `combine = {spec.combine}`",
            spec.at("penalty"),
            "write `combine = minus_std`, or remove `penalty`",
        )
    known = [each for each in members if each is not None]
    if len(known) < len(members) or not known:
        return None
    return EnsembleStage(name=spec.name, spec=spec, of=spec.of, model=known[0].model)


def lower(stage: EnsembleStage, to: "Lowering") -> None:
    """Adds nothing: what names the ensemble has its judgments made."""
    for name in stage.of:
        to.unused.pop(name, None)


ENSEMBLE = Kind(resolve=resolve, lower=lower, shown=("of", "combine", "penalty"))
