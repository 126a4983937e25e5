"""How the jobs of different kinds of training stages differ."""

from collections.abc import Callable
from typing import Any

from ...spec.record import Record
from ..program import ScheduledStage


class Way(Record):
    """How a kind of stage trains.

    Attributes:
        objective: the plan's model of the objective. Its fields have the names of the attributes in
            the schema, so no other code has to know them.
        learns_all: whether a stage learns every token of its dialogs.
        reference: the stage whose model serves as the reference; None without one.
        teacher: the stage whose model's probabilities are learned; None without one.
        writes: whether it learns from answers that its model writes from time to time.
    """

    objective: Callable[[], Any]
    learns_all: Callable[[Any], bool] = lambda spec: False
    reference: Callable[[ScheduledStage], str | None] = lambda stage: None
    teacher: Callable[[ScheduledStage], str | None] = lambda stage: None
    writes: bool = False
