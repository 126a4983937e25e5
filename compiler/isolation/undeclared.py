"""The names of a recipe that nothing declares, whatever else is wrong with what uses them."""

from ...spec.findings.diagnostics import Diagnostic, Report
from ...spec.schedule import Schedule
from ...spec.schema import recipe as r
from ..program import Program, Weights
from ..resolve.declared_data import check_declared
from ..resolve.graph import mixed, order
from ..resolve.scope import Scope
from ..resolve.unroll import unroll

UNKNOWN = "E402"
"""What names that nothing declares are reported as."""


def names(recipe: r.Recipe) -> list[Diagnostic]:
    """What is to be said of names that nothing declares.

    Args:
        recipe: with the stages of variants that it names.
    """
    report = Report()
    scope = Scope(unroll(Program(recipe, None), report), report)
    order(scope)
    check_declared(scope)
    for stage in scope.recipe.stages.values():
        if isinstance(stage, r.Stage) and not isinstance(stage, Weights):
            _stage(scope, stage)
    return [found for found in report.diagnostics if found.code == UNKNOWN]


def _stage(scope: Scope, stage: r.Stage) -> None:
    """Looks up what a stage names beside other stages."""
    recipe = scope.recipe
    for what, known in (
        ("model", recipe.models),
        ("tokenizer", recipe.tokenizers),
        ("cluster", recipe.clusters),
    ):
        name = getattr(stage, what, None)
        if name:
            scope.known(name, what, known, stage.at(what))
    dialog = getattr(stage, "dialog", None)
    if dialog:
        scope.dialog(dialog, None, stage.at("dialog"))
    for attribute in ("data", "loss", "accuracy", "prompts"):
        written = getattr(stage, attribute, None)
        at = stage.at(attribute)
        if isinstance(written, Schedule):
            for segment in written.segments:
                for mix in (segment.start, segment.end):
                    for name in mixed(mix):
                        scope.known(name, "dataset", recipe.datasets, segment.span)
        elif isinstance(written, list):
            for name in written:
                scope.known(name, "dataset", recipe.datasets, at)
        elif written and attribute == "prompts":
            scope.known(written, "dataset", recipe.datasets, at)
    gate = getattr(stage, "gate", None)
    for requirement in gate.requirements if gate else ():
        if requirement.argument not in (None, "short"):
            scope.known(requirement.argument, "dataset", recipe.datasets, requirement.at())
