"""How the kinds of training stages differ in their jobs."""

from collections.abc import Callable
from typing import Any

from ...spec.record import Record
from ..program import ScheduledStage


class Way(Record):
    """How a kind of stage trains.

    Attributes:
        objective: the plan's model of what a stage optimizes. Its fields have the names of the
            attributes in the schema, so that nothing else has to know them.
        learns_all: whether a stage learns every token of its dialogs.
        reference: the stage near whose model another is kept; None without one.
    """

    objective: Callable[[], Any]
    learns_all: Callable[[Any], bool] = lambda spec: False
    reference: Callable[[ScheduledStage], str | None] = lambda stage: None
