"""Checks that what is exported is a model that transformers has."""

from ...spec.findings.diagnostics import Report
from ..program import Scheduled
from ..values import ModelShape


def exported(program: Scheduled, report: Report) -> Scheduled:
    """Reports stages whose models are exported, for a result or to be measured or to answer, and
    whose parts no model of transformers has."""
    if not any(_unknown(getattr(stage, "model", None)) for stage in program.stages.values()):
        return program
    from .lower import lower  # it builds jobs, which no other check needs

    found = [job for job in lower(program).jobs if job.kind == "export"]
    for name in dict.fromkeys(job.stage for job in found if _unknown(job.model)):
        spec = program.stages[name].spec
        report.add(
            "E594",
            f"no model of transformers has the parts of what `{name}` exports",
            spec.at("export"),
            help="write `export = none`, and neither measure nor sample the model: both use "
            "transformers. Or change `parts` to those of a published size",
        )
    return program


def _unknown(model: ModelShape | None) -> bool:
    return model is not None and model.parts is not None and not model.parts.published
