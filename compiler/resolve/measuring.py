"""Stages that do not train: averages, the best of several, evaluations, samples and scores."""

from fractions import Fraction

from ...spec.quantity import counted
from ...spec.schema import recipe as r
from ..program import AverageStage, BestStage, EvaluateStage, SampleStage, ScoreStage
from ..values import Architecture
from .graph import parents
from .scope import Scope


def average(spec: r.Average, scope: Scope) -> AverageStage | None:
    """The stage with its names resolved, or None after reporting."""
    model = _alike(spec, scope)
    if model is None:
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
    return AverageStage(
        name=spec.name, spec=spec, of=spec.of, weights=[w / total for w in weights], model=model
    )


def best(spec: r.Best, scope: Scope) -> BestStage | None:
    """The stage with its names resolved, or None after reporting."""
    model = _alike(spec, scope)
    if model is None:
        return None
    given = [name for name in r.MEASURES if getattr(spec, name) is not None]
    many = [name for name in ("loss", "suites") if len(getattr(spec, name) or []) > 1]
    if len(given) != 1 or many:
        scope.error(
            "E520",
            f"`{spec.name}` chooses by exactly one measure",
            spec.at(given[-1]) if given else spec.at(),
            'write `loss = [DATASET]`, `needle = { … }` or `suites = { math ["gsm8k"] }`',
        )
        return None
    first = scope.trained(scope.stages[spec.of[0]])
    dialog = _measures(spec, scope, first.spec.kind == "reward", first.dialog)
    return BestStage(name=spec.name, spec=spec, of=spec.of, dialog=dialog, model=model)


def evaluate(spec: r.Evaluate, scope: Scope) -> EvaluateStage | None:
    """The stage with its names resolved, or None after reporting."""
    source = _source(spec, scope, "to evaluate")
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
            "write `loss = [DATASET]`, `needle = { … }`, `suites = { … }`, `judge = …`, or "
            "`accuracy = [DATASET]` of a reward model",
        )
    trained = scope.trained(stage)
    dialog = _measures(spec, scope, trained.spec.kind == "reward", trained.dialog)
    return EvaluateStage(name=spec.name, spec=spec, of=source, dialog=dialog, model=trained.model)


def sample(spec: r.Sample, scope: Scope) -> SampleStage | None:
    """The stage with its names resolved, or None after reporting."""
    source = _source(spec, scope, "to sample from")
    scope.data(spec.prompts, "prompts", spec.at("prompts"))
    if source is None:
        return None
    stage = scope.language_model(source, spec.at("from"))
    if spec.judge:
        _judge(spec, scope, source)
    elif spec.keep:
        scope.error(
            "E521",
            "without a judge no draw is better than another",
            spec.at("keep"),
            "write `judge = …`, or leave `keep` out to keep all",
        )
    if stage is None:
        return None
    trained = scope.trained(stage)
    dialog = scope.dialog(spec.dialog, trained.dialog, spec.at("dialog"))
    if dialog is None:
        return None
    keep = spec.keep if spec.keep is not None else 1 if spec.judge else 0
    if keep > spec.draws:
        scope.error(
            "E521",
            f"{keep} draws cannot be kept of {spec.draws}",
            spec.at("keep"),
            f"write `draws = {keep}` or more",
        )
    return SampleStage(
        name=spec.name, spec=spec, of=source, dialog=dialog, keep=keep, model=trained.model
    )


def score(spec: r.Score, scope: Scope) -> ScoreStage | None:
    """The stage with its names resolved, or None after reporting."""
    source = _source(spec, scope, "to score with")
    for name in spec.data:
        scope.data(name, "documents", spec.at("data"))
    stage = scope.language_model(source, spec.at("from")) if source else None
    if source is None or stage is None:
        return None
    return ScoreStage(name=spec.name, spec=spec, of=source, model=scope.trained(stage).model)


def _source(spec: r.Stage, scope: Scope, what: str) -> str | None:
    source = next(iter(parents(spec, scope)), None)
    if source is None:
        scope.error(
            "E405", f"the stage `{spec.name}` has nothing {what}", spec.at(), "write `from = …`"
        )
    return source


def _alike(spec: r.Average | r.Best, scope: Scope) -> Architecture | None:
    """The architecture that all stages in `of` share."""
    of = [scope.with_weights(name, spec.at("of")) for name in spec.of]
    found = [scope.trained(stage) for stage in of if stage]
    if len(found) < len(of):
        return None
    shapes = [(stage.model, stage.spec.kind == "reward") for stage in found]
    if any(shape != shapes[0] for shape in shapes):
        scope.error(
            "E420",
            "these stages have models of different shapes",
            spec.at("of"),
            "only weights of the same shape have a mean"
            if isinstance(spec, r.Average)
            else "models of one shape are compared",
        )
    return found[0].model


def _measures(spec: r.Measuring, scope: Scope, reward: bool, dialog: dict | None) -> dict | None:
    """Checks what is measured; returns the dialog of the samples that a judge scores."""
    for name in spec.loss or []:
        scope.data(name, "documents", spec.at("loss"))
    for name in spec.accuracy or []:
        scope.data(name, "preferences", spec.at("accuracy"))
    if spec.prompts:
        scope.data(spec.prompts, "prompts", spec.at("prompts"))
    for name in r.MEASURES:
        if getattr(spec, name) is not None and reward != (name == "accuracy"):
            scope.error(
                "E512",
                f"`{name}` "
                + (
                    "needs a model that writes text"
                    if reward
                    else "is how well a reward model ranks, and this is none"
                ),
                spec.at(name),
                "write `accuracy = [DATASET]`" if reward else "write `loss = [DATASET]`",
            )
    for name, attribute in r.attributes(type(spec)).items():
        measures = attribute.needs
        if measures and name in spec.places and all(getattr(spec, m) is None for m in measures):
            scope.error(
                "E522",
                f"`{name}` sets nothing here: it belongs to "
                + " and ".join(f"`{m}`" for m in measures),
                spec.at(name),
                f"write `{measures[0]} = …` too, or leave `{name}` out",
            )
    if spec.judge is None:
        return dialog
    for name in ("prompts", "max_tokens"):
        if getattr(spec, name) is None:
            scope.error(
                "E522",
                f"a judge scores samples: `{name}` is missing",
                spec.at("judge"),
                f"write `{name} = …`",
            )
    _judge(spec, scope, None)
    return scope.dialog(spec.dialog, dialog, spec.at("dialog"))


def _judge(spec: r.Sample | r.Measuring, scope: Scope, source: str | None) -> None:
    assert spec.judge
    stage = scope.reward_model(spec.judge, spec.at("judge"))
    if stage is None or source is None or source not in scope.stages:
        return
    tokenizer = scope.trained(scope.stages[source]).tokenizer
    if scope.trained(stage).tokenizer != tokenizer:
        scope.error(
            "E411",
            f"`{spec.judge}` has another tokenizer than the model that it judges",
            spec.at("judge"),
            "train both from one model",
        )
