"""What jobs of a plan are made of: schedules, windows of data, averages, filters."""

from typing import Literal

from pydantic import Field

from ..values import ROUTER_LOSSES, BatchPiece, LrPiece
from .value import Value, later
from .verifiers import Verifier


class MixturePiece(Value):
    """Integer weights from `from_step` to `to_step`, as `mixture.Mixture` takes them."""

    from_step: int
    to_step: int
    weights: dict[str, int]


class Schedule(Value):
    lr: list[LrPiece]
    batch: list[BatchPiece]
    mixture: list[MixturePiece]
    clip: list[LrPiece] | None = later(None)
    weight_decay: list[LrPiece] | None = later(None)
    balance: list[LrPiece] | None = later(None)
    sequence_balance_loss: list[LrPiece] | None = later(None)
    batch_balance_loss: list[LrPiece] | None = later(None)
    router_z_loss: list[LrPiece] | None = later(None)
    mtp_loss: list[LrPiece] | None = later(None)

    @property
    def settings(self) -> dict[str, list[LrPiece]]:
        """What is set before each step beside the rate, as far as it changes."""
        names = ("clip", "weight_decay", "balance", *ROUTER_LOSSES, "mtp_loss")
        named = {name: getattr(self, name) for name in names}
        return {name: pieces for name, pieces in named.items() if pieces}


class Window(Value):
    """What a job reads from a source: tokens of the source's shuffled stream, and sequences."""

    first_token: int
    last_token: int
    sequences: int
    epochs: float | None = Field(description="of the declared or counted tokens; null if neither")


class Averaging(Value):
    """The mean of the weights after each step s of the stage (counted from 1) with s > from_step
    and (s − from_step) divisible by `every`: all count alike, as in Polyak averaging, or with
    `decay` d it begins as the first of them and moves 1 − d of the way to each later one."""

    every: int
    from_step: int
    decay: float | None = later(None, description="of an exponential moving average; null: none")


class Attempt(Value):
    """Marks a job that runs only if gate `gate` has failed: extension number `number`."""

    gate: str
    number: int


class FilterRule(Value):
    """Keeps the share `keep` of the documents whose score compares with `value` as stated."""

    scores: str = Field(description="role of the input with the scores")
    op: Literal[">=", "<=", ">", "<"]
    value: float
    keep: str = Field(description="a fraction of 1; which documents is drawn by the seed")


class PromptWindow(Value):
    """Prompts that a stage reads: places in the source's shuffled order, epoch after epoch."""

    first: int
    count: int
    seed: int = Field(description="of the order")
    longest: int = Field(description="the most tokens of a prompt and its answer")


class Until(Value):
    """Prompts are drawn until those of the window all have answers of different scores."""

    verify: dict[str, Verifier] = Field(description="the verifiers that score the answers")
    weights: dict[str, float] = Field(description="verifier → weight of its score")
    most: int = Field(description="at most so many prompts for each of the window")


class Part(Value):
    """The requested part of a plan, by the names of stages."""

    until: str | None
    only: str | None
    since: str | None
    aside: list[str] = Field(
        description="jobs whose results have to be there: what the part begins with is made of them"
    )
    left_out: dict[str, str] = Field(description="job → key, of the jobs of the plan left out")
    beside: bool = later(
        False,
        description="whether other parts may be run beside this one in the same run folder: they "
        "share no job that they make",
    )


class StepScores(Value):
    """How a process reward model scores an answer."""

    separator: str = Field(description="between its steps")
    combine: Literal["product", "minimum", "last"] = Field(
        description="of the probabilities that they are right"
    )
