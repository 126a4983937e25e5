"""The inputs of stages that do not train: the results of one or more other stages."""

from ...spec.schema import recipe as r
from ..program import ModelStage
from ..resolve.graph import parents
from ..resolve.scope import Scope


def source_of(spec: r.Stage, scope: Scope, without: str) -> str | None:
    """The stage whose result another takes; None after reporting.

    Args:
        without: what is wrong with a stage without one: "has nothing to evaluate".
    """
    source = next(iter(parents(spec, scope)), None)
    if source is None:
        scope.error("E405", f"the stage `{spec.name}` {without}", spec.at(), "write `from = …`")
    return source


def alike(spec: r.Average | r.Best, scope: Scope, help: str) -> ModelStage | None:
    """The first of the stages in `of`, whose models must have one shape; None after reporting."""
    of = [scope.with_weights(name, spec.at("of")) for name in spec.of]
    found = [scope.trained(stage) for stage in of if stage]
    if len(found) < len(of):
        return None
    shapes = [(stage.model, stage.spec.writes_text) for stage in found]
    if any(shape != shapes[0] for shape in shapes):
        scope.error("E420", "these stages have models of different shapes", spec.at("of"), help)
    return found[0]
