"""Published weights: models that stages continue from, and that no stage in the recipe trains.

A model with weights is in the graph like a stage, under its own name.
"""

from collections.abc import Iterator, Mapping

from ...spec.findings.diagnostics import Report
from ...spec.schema import recipe as r
from ..files.urls import has_secret, secret
from ..program import Weights
from .references import referring


def published(
    models: Mapping[str, r.Model], stages: Mapping[str, r.Stage | r.Rounds], report: Report
) -> dict[str, r.Stage | r.Rounds]:
    """The nodes in the graph for the models with weights that stages continue from.

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
                f"`{name}` is both a model with weights and a stage",
                stages[name].at(),
                help="rename one of them",
                notes=[(place, "the model is declared here")] if (place := model.at()) else [],
            )
        elif name in named:
            found[name] = Weights(
                name=name, model=model, places=model.places, sources=model.sources
            )
    return found


def _named(stage: r.Stage | r.Rounds) -> Iterator[str]:
    """The names in a stage that could be models, or stages with the same name."""
    for each in referring(stage) if isinstance(stage, r.Stage) else ():
        if not each.reads_data and {"stage", "model"} & {*each.to}:
            yield from each.names


def check_weights(model: r.Model, report: Report) -> None:
    """Reports attributes of a model that do not work together, and secrets in a URL."""
    if model.weights and has_secret(model.weights):
        message, help = secret(model.weights, f"the model `{model.name}`")
        report.add("E551", message, model.at("weights"), help=help)
    if model.weights and model.hub:
        report.add(
            "E426",
            f"the model `{model.name}` has both `weights` and `hub`",
            model.at("hub"),
            help="remove one of them",
        )
    for name, other in (("revision", "`hub`"), ("context", "weights")):
        needs = r.attributes(r.Model)[name].needs
        if getattr(model, name) is not None and not any(getattr(model, n) for n in needs):
            report.add(
                "E426",
                f"`{name}` can be used only with {other}",
                model.at(name),
                help='write `weights = "FOLDER"` or `hub = "OWNER/NAME"`, or remove it',
            )
