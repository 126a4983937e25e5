"""The measures of evaluations and choices, and what judges and verifiers score."""

from ...spec.schema import recipe as r
from ...spec.source import Span
from ..program import ModelStage, Stage, WeightsStage
from ..resolve.scope import Scope
from .verifying import check_verifiers

SHOWN = (
    "prompts",
    "judge",
    "verify",
    "draws",
    "temperature",
    "max_tokens",
    "loss",
    "needle",
    "accuracy",
    "suites",
    "tasks",
    "limit",
    "seq_len",
)
"""The attributes shown for measures, in this order."""


def measured(spec: r.Measuring, scope: Scope, trained: ModelStage) -> dict | None:
    """Checks the measures of a model; returns the dialog of the answers that a judge or verifiers
    score, and of chats."""
    reward = not trained.spec.writes_text
    datasets = scope.recipe.datasets
    chats = {n for n in spec.loss or [] if n in datasets and datasets[n].kind == "dialogs"}
    for name in spec.loss or []:
        scope.data(name, "dialogs" if name in chats else "documents", spec.at("loss"))
    # Published reward models are taken to be of whole answers.
    ranks = getattr(trained.spec, "data_kind", "preferences") if reward else "preferences"
    for name in spec.accuracy or []:
        scope.data(name, ranks, spec.at("accuracy"))
    if spec.prompts:
        scope.data(spec.prompts, "prompts", spec.at("prompts"))
    for name in r.MEASURES:
        if getattr(spec, name) is not None and reward != (name == "accuracy"):
            scope.error(
                "E512",
                f"`{name}` "
                + (
                    "needs a model that generates text, but this is a reward model"
                    if reward
                    else "measures how well a reward model ranks, but this model generates text"
                ),
                spec.at(name),
                f"write `{'accuracy' if reward else 'loss'} = [DATASET]`, or measure "
                + ("a model that generates text" if reward else "a reward model")
                + " with `from`",
            )
    for name, attribute in r.attributes(type(spec)).items():
        measures = attribute.needs
        if measures and name in spec.places and all(getattr(spec, m) is None for m in measures):
            scope.error(
                "E522",
                f"`{name}` has no effect here: it belongs to "
                + " and ".join(f"`{m}`" for m in measures),
                spec.at(name),
                f"write `{measures[0]} = …` too, or remove `{name}`",
            )
    asking = next((name for name in r.ANSWERING if getattr(spec, name) is not None), None)
    if asking is None:
        return scope.dialog(spec.dialog, trained.dialog, spec.at()) if chats else trained.dialog
    for name in ("prompts", "max_tokens"):
        if getattr(spec, name) is None:
            scope.error(
                "E522",
                f"`{asking}` also needs `{name}`",
                spec.at(asking),
                f"write `{name} = …`",
            )
    if spec.judge:
        judge(spec, scope, None)
    check_verifiers(spec.verify or [], scope, spec.at("verify"))
    return scope.dialog(spec.dialog, trained.dialog, spec.at("dialog"))


def judge(spec: r.Sample | r.Measuring, scope: Scope, source: str | None) -> None:
    """Checks a judge, including against the stage `source` whose answers it scores."""
    assert spec.judge
    stage = scope.reward_model(spec.judge, spec.at("judge"))
    if stage is not None and source is not None and source in scope.stages:
        same_tokenizer(stage, source, scope, spec.at("judge"))


def same_tokenizer(judge: Stage, source: str, scope: Scope, at: Span | None) -> None:
    """Checks that a reward model reads the tokens that the stage `source` writes. Published ones
    read its texts, in tokens of their own."""
    if judge.spec.judges:
        for name in judge.sources:
            same_tokenizer(scope.stages[name], source, scope, at)
        return
    if isinstance(scope.trained(judge), WeightsStage):
        return
    if scope.trained(judge).tokenizer != scope.trained(scope.stages[source]).tokenizer:
        scope.error(
            "E411",
            f"`{judge.name}` has a different tokenizer from the model that it judges",
            at,
            "train both from the same model",
        )
