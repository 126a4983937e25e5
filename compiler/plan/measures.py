"""Measures of models in plans, and the requirements of gates."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .value import Value, later
from .verifiers import Verifier


class LossMeasure(Value):
    """Mean cross-entropy (nats per token) on held-out documents, cut at `seq_len`, or dialogs."""

    metric: Literal["loss"] = "loss"
    name: str
    data: list[str]
    seq_len: int
    tokens: int = Field(description="at most so many tokens of each source are measured")
    every_token: bool = Field(
        default=False,
        description="of dialogs all tokens count, not the assistant's content and terminators",
        exclude_if=lambda value: value is False,
    )


class NeedleMeasure(Value):
    """Needle in a haystack: exact match of the generated answer over lengths × depths."""

    metric: Literal["needle"] = "needle"
    name: str
    lengths: list[int]
    depths: int
    samples: int = Field(description="questions at each length and depth")
    seed: int


class AccuracyMeasure(Value):
    """Share of held-out ordered pairs that a reward model ranks as people did, or of the steps of
    held-out solutions that it labels as people did."""

    metric: Literal["accuracy"] = "accuracy"
    name: str
    data: list[str]
    of: Literal["preferences", "solutions"] = later("preferences")


class RewardMeasure(Value):
    """Mean reward that a judge gives to samples of the model."""

    metric: Literal["reward"] = "reward"
    name: str
    prompts: str = Field(description="source of the prompts")
    limit: int = Field(description="at most so many prompts")
    dialog: dict[str, Any]
    max_tokens: int
    temperature: float
    draws: int = later(1, description="answers to each prompt")
    seed: int


class VerifiedMeasure(Value):
    """Share of the model's answers that a verifier finds right, and pass@k."""

    metric: Literal["verified"] = "verified"
    name: str
    verify: dict[str, Verifier] = Field(description="the verifier, by its name")
    prompts: str = Field(description="source of the prompts")
    limit: int = Field(description="at most so many prompts")
    dialog: dict[str, Any]
    max_tokens: int
    temperature: float
    draws: int = Field(description="answers to each prompt")
    seed: int


Answered = RewardMeasure | VerifiedMeasure
"""Measures of answers to prompts; those of a job are of the same answers."""


class SuiteMeasure(Value):
    """Tasks of lm-evaluation-harness; the score is the mean of the tasks' first metrics."""

    metric: Literal["suite"] = "suite"
    name: str = Field(description="the capability: math, code, …")
    tasks: list[str]
    folder: str | None = Field(description="of task files, relative to the spec's folder")
    limit: int | None = Field(description="documents of each task")
    seed: int


Measure = Annotated[
    LossMeasure | NeedleMeasure | AccuracyMeasure | RewardMeasure | VerifiedMeasure | SuiteMeasure,
    Field(discriminator="metric"),
]


HeldOut = Annotated[LossMeasure | AccuracyMeasure, Field(discriminator="metric")]
"""Measures on held-out data, for which a model only has to read."""
HELD_OUT = (LossMeasure, AccuracyMeasure)


class Requirement(Value):
    """`measure op value`, or `measure op value × the same measure at the start of the stage`."""

    measure: str
    op: Literal[">=", "<=", ">", "<"]
    value: float
    of_start: bool
