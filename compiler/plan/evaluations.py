"""Evaluations inside train jobs, as plans hold them."""

from pydantic import Field

from ..values import Reading
from .keys import OBSERVER
from .measures import LossMeasure
from .value import Value

DECIDER = "decides:"
"""How the roles of inputs begin that a train job needs to measure the loss that decides. Those of
all other losses begin with `OBSERVER`, and are not part of its key."""


class Evaluation(Value):
    """Losses that a train job measures after steps of its stage, without any effect on training.

    Of preferences the loss is that of the stage's objective; accuracy and margin come with it.
    """

    every: int = Field(description="steps of the stage between two; its last step is evaluated too")
    times: int = Field(description="evaluations in this job; fewer if it ends early")
    measures: list[LossMeasure]
    reading: Reading | None = Field(
        description="of one evaluation; null: on a CPU, or on a GPU that is not known"
    )

    @property
    def tokens(self) -> int:
        """Tokens that all evaluations read, at most."""
        return self.times * sum(each.tokens for each in self.measures)


class Choice(Value):
    """What the loss on one source decides about a train job."""

    measure: LossMeasure
    every: int
    patience: int | None = Field(
        description="the job ends after so many evaluations in a row without a new lowest loss"
    )
    best: bool = Field(
        description="the result is the checkpoint with the lowest loss, the first of equal ones"
    )


def role(measure: LossMeasure, choice: Choice | None, of: str) -> str:
    """The role of an input that a train job needs for a measure.

    Args:
        of: "data", or "reference": log-probabilities of the data under the reference.
    """
    decides = choice is not None and choice.measure.name == measure.name
    return f"{DECIDER if decides else OBSERVER}{of}:{measure.data[0]}"
