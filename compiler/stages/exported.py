"""Checks that what is exported is a model that transformers has."""

from ...spec.findings.diagnostics import Report
from ..families import FAMILIES
from ..program import Scheduled
from ..values import ModelShape


def exported(program: Scheduled, report: Report) -> Scheduled:
    """Reports stages whose models are exported, for a result or to be measured or to answer, and
    whose parts no model of transformers has, or none that ends in a score."""
    models = [getattr(stage, "model", None) for stage in program.stages.values()]
    if not any(_unknown(model) or _unscored(model) for model in models):
        return program
    from .lower import lower  # it builds jobs, which no other check needs

    found = [job for job in lower(program).jobs if job.kind == "export"]
    for name in dict.fromkeys(job.stage for job in found if _unknown(job.model)):
        report.add(
            "E594",
            f"no model of transformers has the parts of what `{name}` exports",
            program.stages[name].spec.at("export"),
            help="write `export = none`, and neither measure nor sample the model: both use "
            "transformers. Or change `parts` to those of a published size",
        )
    scored = (job for job in found if job.head == "score" and _unscored(job.model))
    for name, kind in {job.stage: job.model.parts.published for job in scored}.items():
        report.add(
            "E594",
            f"transformers has {kind} only as a language model, and `{name}` exports a reward "
            "model",
            program.stages[name].spec.at("export"),
            help="write `export = none`: as a judge here it needs no export",
        )
    return program


def _unknown(model: ModelShape | None) -> bool:
    return model is not None and model.parts is not None and not model.parts.published


def _unscored(model: ModelShape | None) -> bool:
    if model is None or model.parts is None:
        return False
    return model.parts.published in FAMILIES[model.family].unscored
