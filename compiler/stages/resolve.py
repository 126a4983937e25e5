"""Resolves names in stages: their graph, models, hardware and settings."""

from ...spec.findings.diagnostics import Report
from ..program import Program, Resolved
from ..resolve.declared_data import check_declared
from ..resolve.graph import order
from ..resolve.scope import Scope
from . import KINDS


def resolve(program: Program, report: Report) -> Resolved:
    """The program with its stages, in an order in which they can run."""
    scope = Scope(program, report)
    check_declared(scope)
    if not scope.specs:
        scope.error(
            "E401",
            "this recipe has no stages",
            scope.recipe.header.at(),
            "add one: stage pretrain: train { … }",
        )
    for name in order(scope):
        spec = scope.specs[name]
        resolved = KINDS[type(spec)].resolve(spec, scope)
        if resolved:
            scope.stages[name] = resolved
    return Resolved(**vars(program), stages=scope.stages)
