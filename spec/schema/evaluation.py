"""Evaluations inside a stage that trains: `evaluate`."""

from ..quantity import counted
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .data_blocks import DATA
from .declaration import Declaration, attribute

LOSS_TOKENS = 65_536
"""The most held-out tokens of each source that a loss is measured on, if the spec does not say."""
DECIDES = ("patience", "keep")
"""The attributes that make a loss decide about the stage's result."""


class Evaluation(Declaration):
    """Losses on held-out data, measured while a stage trains, and what follows from them."""

    every: int = attribute(
        nk.Whole("steps"), doc="steps between two evaluations; the last step is evaluated, too"
    )
    loss: list[str] = attribute(
        k.Ref(*DATA, many=True),
        doc="data sets whose held-out part is measured, of the [kinds that the stage can "
        "read](#evaluate)",
    )
    tokens: int = attribute(
        nk.Whole("tokens"), LOSS_TOKENS, doc="at most so many held-out tokens of each are read"
    )
    by: str | None = attribute(
        k.Ref(*DATA),
        None,
        otherwise="the only one in `loss`",
        doc="the data set whose loss decides",
        needs=DECIDES,
    )
    patience: int | None = attribute(
        nk.Whole(),
        None,
        otherwise="the stage trains all its steps",
        doc="the stage ends after so many evaluations in a row without a new lowest loss",
    )
    keep: str = attribute(
        k.OneOf("last", "best"),
        "last",
        doc="`best`: the result is the checkpoint with the lowest loss, not the last",
    )

    @property
    def decides(self) -> bool:
        """Whether a loss decides when the stage ends, or what its result is."""
        return self.patience is not None or self.keep == "best"

    def shown(self) -> str:
        """In words."""
        of = f"loss of {', '.join(self.loss)} every {counted(self.every, 'steps')}"
        parts = [f"{of}, on up to {counted(self.tokens, 'tokens')} each"]
        by = f" of {self.by}" if self.by else ""
        if self.patience is not None:
            times = counted(self.patience, "evaluations")
            parts.append(f"ends after {times} without a lower loss{by}")
        if self.keep == "best":
            parts.append(f"keeps the checkpoint with the lowest loss{by}")
        return "; ".join(parts)


EVALUATION = g.Group(Evaluation, "every = 100 steps, loss = [heldout]")
