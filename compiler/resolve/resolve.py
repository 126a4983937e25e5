"""Names to what they stand for: the graph of stages, their models, hardware and settings."""

from collections.abc import Callable
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.record import replace
from ...spec.schema import recipe as r
from ..program import Program, Weights
from .checkpoints import checkpoint
from .declared_data import check_declared
from .graph import order
from .measuring import average, best, evaluate, sample, score
from .scope import Scope
from .training import training
from .weights import weights

STAGES: dict[type[r.Stage | r.Rounds], Callable[[Any, Scope], Any]] = {
    r.Train: training,
    r.Sft: training,
    r.Reward: training,
    r.Dpo: training,
    Weights: weights,
    r.Checkpoint: checkpoint,
    r.Average: average,
    r.Best: best,
    r.Evaluate: evaluate,
    r.Sample: sample,
    r.Score: score,
}
"""Kind of stage → what resolves it: from the spec to the program's stage, None after reporting."""


def resolve(program: Program, report: Report) -> Program:
    """Fills `stages`, in an order in which they can run."""
    scope = Scope(program, report)
    check_declared(scope)
    stages = scope.recipe.stages
    if not stages:
        scope.error(
            "E401",
            "this recipe has no stages",
            scope.recipe.header.at(),
            "add one: stage pretrain: train { … }",
        )
    for name in order(scope):
        spec = stages[name]
        resolved = STAGES[type(spec)](spec, scope)
        if resolved:
            scope.stages[name] = resolved
    return replace(program, stages=scope.stages)
