"""Published weights: models that stages continue from, and that no stage of the recipe has made.

A model with weights stands in the graph like a stage, under its own name.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from ...spec.findings.diagnostics import Report
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..placement import mesh
from ..program import Segment, TrainStage, Weights, WeightsStage
from ..values import LrPiece
from .scope import Scope
from .shape import architecture
from .training import DEFAULTS, hardware, stage_tokenizer

REVISION = "main"
"""What is taken of a repository where the spec names no revision."""


def published(
    models: Mapping[str, r.Model], stages: Mapping[str, r.Stage | r.Rounds], report: Report
) -> dict[str, r.Stage | r.Rounds]:
    """What stands in the graph for the models with weights that stages continue from.

    Args:
        stages: unrolled.
    """
    named = {name for stage in stages.values() for name in _named(stage)}
    found: dict[str, r.Stage | r.Rounds] = {}
    for name, model in models.items():
        if not (model.weights or model.hub):
            continue
        if name in stages:
            report.add(
                "E427",
                f"`{name}` is a model with weights and a stage: which is meant?",
                stages[name].at(),
                help="give one of them another name",
                notes=[(place, "the model is declared here")] if (place := model.at()) else [],
            )
        elif name in named:
            found[name] = Weights(name=name, model=name, places=model.places)
    return found


def _named(stage: r.Stage | r.Rounds) -> Iterator[str]:
    for attribute in ("model", "from_", "reference", "judge"):
        yield getattr(stage, attribute, None) or ""
    yield from getattr(stage, "of", ())


def check_weights(model: r.Model, report: Report) -> None:
    """Reports attributes of a model that say nothing together."""
    if model.weights and model.hub:
        report.add(
            "E426",
            f"the model `{model.name}` has weights in a folder and on the hub",
            model.at("hub"),
            help="leave one of them out",
        )
    for name, other in (("revision", "`hub`"), ("context", "weights")):
        needs = r.attributes(r.Model)[name].needs
        if getattr(model, name) is not None and not any(getattr(model, n) for n in needs):
            report.add(
                "E426",
                f"`{name}` belongs to a model with {other}",
                model.at(name),
                help='write `weights = "FOLDER"` or `hub = "OWNER/NAME"`, or leave it out',
            )


def _tokenizer(spec: Weights, model: r.Model, scope: Scope) -> str | None:
    """The tokenizer of the weights: of several the one that stands beside them."""
    known = scope.recipe.tokenizers
    if len(known) < 2:
        return stage_tokenizer(scope, spec, None)
    folder = model.weights and PurePath(model.weights)
    own = [
        name
        for name, each in known.items()
        if (each.hub and each.hub == model.hub)
        or (each.file and folder and PurePath(each.file).is_relative_to(folder))
    ]
    if len(own) == 1:
        return own[0]
    where = f'file = "{folder}/tokenizer.json"' if folder else f'hub = "{model.hub}"'
    scope.error(
        "E412",
        f"the model `{model.name}` has {len(known)} tokenizers to choose from",
        model.at(),
        f"declare one that is of its weights: `tokenizer {model.name} {{ {where} }}`",
    )
    return None


def weights(spec: Weights, scope: Scope) -> WeightsStage | None:
    """The published weights of a model, as a result with which nothing is in force."""
    assert spec.model
    model = scope.recipe.models[spec.model]
    tokenizer = _tokenizer(spec, model, scope)
    shape = architecture(spec, tokenizer, scope)
    if model.context is None:
        scope.error(
            "E417",
            f"the model `{model.name}` needs `context`, as it has weights",
            model.at(),
            "write the longest sequence that they were trained on: `context = 4Ki` (config.json "
            "has it as max_position_embeddings)",
        )
        return None
    # Where there are several clusters, nothing but a score stage runs on that of the weights.
    where = hardware(scope, replace(spec, cluster=next(iter(scope.recipe.clusters), None)), None)
    if shape is None or where is None:
        return None
    resources = mesh(where, {}, shape, spec.at(), scope.report)
    if resources is None:
        return None
    segment = Segment(
        from_step=0,
        to_step=0,
        seq_len=model.context,
        rope_theta=shape.rope_theta,
        resources=resources,
        micro_batch=1,
    )
    rate = LrPiece(
        from_step=0, to_step=1, shape="hold", start=0, end=0, clock="steps", origin=0, length=1
    )
    result = TrainStage(
        name=spec.name,
        spec=spec,
        parent=None,
        model=shape,
        tokenizer=tokenizer,
        hardware=where,
        optimizer=r.Optimizer(name="adamw"),
        carries=False,
        settings=r.INHERITED,
        precision="fp32" if where.device == "cpu" else "bf16",
        recompute=DEFAULTS["recompute"],
        origins={},
        lengths=[(0, 0, model.context)],
        lr=[rate],
        segments=[segment],
    )
    source = (
        {"folder": model.weights}
        if model.weights
        else {"hub": model.hub or "", "revision": model.revision or REVISION}
    )
    return WeightsStage(name=spec.name, spec=spec, model=shape, source=source, result=result)
