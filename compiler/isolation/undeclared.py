"""Reports undeclared names, whatever else is wrong with the blocks that use them."""

from collections.abc import Mapping

from ...spec.findings.diagnostics import Diagnostic, Report
from ...spec.schema import recipe as r
from ..program import Program, Weights
from ..resolve.declared_data import check_declared
from ..resolve.graph import order
from ..resolve.references import referring
from ..resolve.scope import Scope
from ..resolve.unroll import unroll

UNKNOWN = "E402"
"""The code of undeclared names."""


def names(recipe: r.Recipe) -> list[Diagnostic]:
    """The findings about undeclared names.

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
    """Looks up what a stage names besides other stages."""
    declared: dict[str, Mapping[str, object]] = {
        "model": scope.recipe.models,
        "tokenizer": scope.recipe.tokenizers,
        "cluster": scope.recipe.clusters,
        "dataset": scope.recipe.datasets,
        "verifier": scope.recipe.verifiers,
    }
    for each in referring(stage):
        if each.to == ("dialog",) and each.value:
            scope.dialog(each.value, None, stage.at(each.attribute))
        elif each.to[0] in declared:
            for name, at in each.at(stage):
                if "stage" in each.to and name in scope.specs:
                    continue
                scope.known(name, each.to[0], declared[each.to[0]], at)
    gate = getattr(stage, "gate", None)
    for requirement in gate.requirements if gate else ():
        if requirement.argument not in (None, "short"):
            scope.known(requirement.argument, "dataset", declared["dataset"], requirement.at())
