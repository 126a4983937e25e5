"""What the evaluations inside a training stage need of the stage and its data."""

from ...spec.schema import recipe as r
from ..resolve.scope import Scope


def check_evaluation(scope: Scope, spec: r.Training) -> None:
    """Reports evaluations that the stage cannot make, or that cannot decide."""
    asked = spec.evaluate
    if asked is None:
        return
    place = asked.at("loss")
    for name in asked.loss:
        dataset = scope.recipe.datasets.get(name)
        kind = dataset.kind if dataset and dataset.kind in spec.measured else spec.measured[0]
        scope.data(name, kind, place)
    if asked.by and not asked.decides:
        scope.error(
            "E522",
            "`by` has no effect here: it belongs to `patience` and `keep = best`",
            asked.at("by"),
            "write `patience = 3` or `keep = best` too, or remove `by`",
        )
        return
    if asked.decides:
        _which(scope, asked)
        _whole(scope, spec, asked)


def _which(scope: Scope, asked: r.Evaluation) -> None:
    """Reports if it is not clear which loss decides, or if that is not measured."""
    named = ", ".join(f"`{scope.shown(name)}`" for name in asked.loss)
    if asked.by is None and len(asked.loss) > 1:
        scope.error(
            "E585",
            f"the losses of {len(asked.loss)} data sets are measured, and none is said to decide",
            asked.at("patience" if asked.patience else "keep"),
            f"write which of {named} decides: `by = {scope.shown(asked.loss[0])}`",
        )
    elif asked.by is not None and asked.by not in asked.loss:
        scope.error(
            "E585",
            f"the loss of `{scope.shown(asked.by)}` is to decide, and is not measured",
            asked.at("by"),
            f"add it to `loss`, or write one of {named}",
        )


def _whole(scope: Scope, spec: r.Training, asked: r.Evaluation) -> None:
    """Reports a stage with other ways to end, or to get its result."""
    clashes = {
        "gate": "a gate decides how long this stage trains",
        "average": "the result of this stage is an average",
        "ema": "the result of this stage is an average",
        "refresh": "this stage is cut where its model writes new answers",
    }
    for name, why in clashes.items():
        if getattr(spec, name, None) is not None:
            attribute = "patience" if asked.patience else "keep"
            scope.error(
                "E586",
                f"a loss cannot decide here: {why}",
                asked.at(attribute),
                f"remove `{attribute}`" + (f", or `{name}`" if name in spec.places else ""),
            )
            return
