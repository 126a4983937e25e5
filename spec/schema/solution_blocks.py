"""The attributes of stages that learn which steps of answers are right."""

from typing import ClassVar

from ..schedule import Schedule
from . import convert_schedule as cs
from . import kinds as k
from .declaration import attribute
from .training_blocks import DIALOG, DROP_LAST, Training


class Prm(Training):
    """A process reward model, from answers whose steps are labelled right or wrong."""

    kind: ClassVar[str] = "prm"
    writes_text: ClassVar[bool] = False
    data_kind: ClassVar[str] = "solutions"
    rows: ClassVar[str] = "solutions"
    measured: ClassVar[tuple[str, ...]] = ("solutions",)
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Solutions()), None, doc="answers per step of training; inherited"
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    separator: str | None = attribute(
        k.Text(filled=True),
        "\n",
        doc="what stands between the steps of an answer: steps of the data are joined with it, and "
        "answers that the model judges are cut at it",
    )
    loss_on: str = attribute(
        k.OneOf("all", "last"),
        "all",
        name="loss",
        doc="learn whether each step is right, or only whether the last one is",
    )
    combine: str | None = attribute(
        k.OneOf("product", "minimum", "last"),
        "product",
        doc="how the probabilities that steps are right become the [score of an "
        "answer](post_training.md#process-reward-models)",
    )
    drop_last: bool = DROP_LAST
