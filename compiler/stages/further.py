"""Multi-token prediction: which stages train the modules that predict further tokens."""

from typing import Any

from ...spec.record import Record
from ...spec.schema import recipe as r
from ..resolve.scope import Scope
from ..values import ModelShape

WEIGHT = 0.3
"""The usual weight of their loss (arXiv:2412.19437 §4.2; torchtitan 0.3, `MTPLoss`)."""


class Further(Record):
    """What a stage trains.

    Attributes:
        model: with its modules, if the stage trains them; without, if it leaves them out.
        weight: of their loss, or its schedule; None where there are none.
    """

    model: ModelShape
    weight: Any


def further(scope: Scope, spec: r.Training, model: ModelShape, weight: Any) -> Further:
    """The model of a stage with the modules that it trains. Only stages that learn every token of
    documents train them; others leave them out, and so do those behind them.

    Args:
        weight: given or inherited; None if neither.
    """
    if given := getattr(spec, "mtp_loss", None):
        _check(scope, spec, model)
        weight = given
    trains = "mtp_loss" in r.attributes(type(spec)) and spec.adapter is None
    if not model.mtp or not trains or weight == 0:
        return Further(model=model.main, weight=None)
    return Further(model=model, weight=WEIGHT if weight is None else weight)


def _check(scope: Scope, spec: r.Training, model: ModelShape) -> None:
    """Reports a loss of modules that the stage does not have, or cannot train."""
    place = spec.at("mtp_loss")
    if spec.adapter is not None:
        scope.error(
            "E468",
            "adapters freeze the model, with the modules that predict further tokens",
            place,
            "remove `mtp_loss`, or `adapter`",
        )
    elif not model.mtp:
        scope.error(
            "E468",
            "this model has no modules that predict further tokens",
            place,
            "write `mtp = 1` in the model; a stage with `mtp_loss = 0`, an `adapter`, or another "
            "kind than `train` leaves them out for all stages behind it"
            if spec.model is None
            else "write `mtp = 1` in the model, or remove `mtp_loss`",
        )
