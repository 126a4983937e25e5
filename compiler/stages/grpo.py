"""Reinforcement learning from rewards of a model's own answers."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ...spec.schema import recipe as r
from ..as_written import counted
from ..ids import DataId
from ..lowering.way import Way
from ..program import ScheduledStage, TrainStage
from ..resolve.graph import data_of
from ..resolve.scope import Scope
from .kind import TrainingKind
from .measuring import same_tokenizer
from .training import resolve_training, same_shape

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


def resolve(spec: r.Grpo, scope: Scope) -> TrainStage | None:
    """The stage with its names resolved; None after reporting."""
    stage = resolve_training(spec, scope, needs=("lr", "data", "batch"))
    for name in spec.reward:
        _scores(name, spec, scope)
    if spec.averages:
        scope.error(
            "E582",
            "a policy writes its answers with the weights that it trains, not with their mean",
            spec.at("average" if spec.average else "ema"),
            "remove it; for a mean of results, write "
            f"`stage NAME: average {{ of = [{spec.name}, …] }}`",
        )
    for name in ("reference", "reference_refresh"):
        if getattr(spec, name) and not spec.kl:
            scope.error(
                "E522",
                f"`{name}` has no effect here: it belongs to `kl`",
                spec.at(name),
                f"write `kl = 0.01` too, or remove `{name}`",
            )
    _unscored(spec, scope)
    _renewed(spec, scope)
    _replacing(spec, scope)
    return same_shape(stage, scope)


def _unscored(spec: r.Grpo, scope: Scope) -> None:
    """Checks that something scores the answers to each data set."""
    verifiers = [scope.recipe.verifiers.get(name) for name in spec.reward]
    if not all(each and each.data is not None for each in verifiers):
        return  # a reward stage scores all, and so does a verifier without `data`
    scored = {name for each in verifiers if each for name in each.data or ()}
    for name in dict.fromkeys(data_of(spec)):
        if DataId.parse(name).name not in scored:
            scope.error(
                "E589",
                f"nothing in `reward` scores the answers to `{name}`: the verifiers there are for "
                "other data sets",
                spec.at("data"),
                f"add `{DataId.parse(name).name}` to `data` of a verifier, or a verifier without "
                "`data` to `reward`",
            )


def _renewed(spec: r.Grpo, scope: Scope) -> None:
    """Checks that the reference is renewed between turns."""
    every, turn = spec.reference_refresh, spec.refresh
    if every is None or every % turn == 0:
        return
    near = max(every // turn, 1) * turn
    scope.error(
        "E583",
        f"a new reference after {counted(every, 'steps')} is in the middle of a turn: the model "
        f"writes new answers after each {counted(turn, 'steps')}",
        spec.at("reference_refresh"),
        f"write `reference_refresh = {near} steps`, or another multiple of `refresh`",
    )


def _replacing(spec: r.Grpo, scope: Scope) -> None:
    """Checks that a verifier can tell which prompts are to be replaced."""
    asked = spec.dynamic_sampling
    if asked is None:
        return
    verifiers = [name for name in spec.reward if name in scope.recipe.verifiers]
    strangers = [name for name in asked.by or () if name not in verifiers]
    if not verifiers:
        scope.error(
            "E590",
            "`dynamic_sampling` replaces prompts whose answers are all right or all wrong, and no "
            "verifier in `reward` says which are right",
            spec.at("dynamic_sampling"),
            "add a verifier to `reward`, or remove `dynamic_sampling`: a reward stage hardly ever "
            "gives two answers the same reward",
        )
    elif strangers:
        scope.error(
            "E590",
            f"`{strangers[0]}` is no verifier in this stage's `reward`, so it scores no answers",
            spec.at("dynamic_sampling"),
            f"write `by = [{', '.join(verifiers)}]`, or add `{strangers[0]} 1` to `reward`",
        )


def _scores(name: str, spec: r.Grpo, scope: Scope) -> None:
    """Checks what scores the answers: a verifier, or a reward stage that reads the same tokens."""
    if name in scope.recipe.verifiers or name not in scope.stages:
        return
    judge = scope.reward_model(name, spec.at("reward"))
    if judge is not None and spec.from_ in scope.stages:
        same_tokenizer(judge, spec.from_, scope, spec.at("reward"))


def lower(stage: ScheduledStage, to: "Lowering") -> None:
    """Adds the jobs that draw, score and learn, in turns."""
    to.trained(stage)
    spec: Any = stage.spec
    for name in spec.reward:
        to.unused.pop(name, None)


def objective() -> Any:
    """The objective of a stage, as in the plan."""
    from ..plan.plan import Grpo

    return Grpo


def reference(stage: TrainStage) -> str | None:
    """The stage whose model the policy is kept close to; None if nothing keeps it there."""
    spec: Any = stage.spec
    return (spec.reference or stage.parent) if spec.kl else None


GRPO = TrainingKind(
    resolve=resolve,
    lower=lower,
    way=Way(objective=objective, reference=reference, writes=True),
    peak=Fraction(1, 1000),
)
