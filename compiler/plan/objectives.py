"""What training jobs learn from: the objectives of the plan."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypeIs

from ...spec.schema.preference_losses import LOSSES
from .value import Value, later

DROP_LAST = "an epoch ends with its last whole batch"


class Learned(Value):
    """Cross-entropy of tokens; numeric fields are coefficients of additional terms."""

    def terms(self) -> dict[str, float]:
        """The terms added to the cross-entropy: name → coefficient, without zeros."""
        return {name: value for name, value in self if isinstance(value, float) and value}


class NextToken(Learned):
    """Cross-entropy of every token of documents."""

    name: Literal["next_token"] = "next_token"
    z_loss: float = later(0.0, description="coefficient of the mean of log² Z")


class Sft(Learned):
    """Cross-entropy of dialogs: the assistant's content and terminators, or all tokens."""

    name: Literal["sft"] = "sft"
    loss_on: Literal["assistant", "all"] = "assistant"
    drop_last: bool = later(False, description=DROP_LAST)
    counts: Literal["sequences", "dialogs"] = later(
        "sequences", description="what batches count: rows of packed dialogs, or dialogs"
    )


class Distill(Value):
    """The divergence of dialogs' next-token probabilities from a teacher's, see `DistillLoss`."""

    name: Literal["distill"] = "distill"
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    temperature: float
    top_k: int = Field(description="tokens whose probabilities are known of each place")
    vocab: int | None = later(None, description="of a teacher: the tokens that its student has")
    loss_on: Literal["assistant", "all"] = "assistant"
    drop_last: bool = False
    counts: Literal["sequences", "dialogs"] = later(
        "sequences", description="what batches count: rows of packed dialogs, or dialogs"
    )


class Reward(Value):
    """A loss of a scalar head: of Bradley and Terry, over every ordered pair of a record's
    responses, or of Plackett and Luce, over its ranking; see `RewardLoss`.

    In the layout `joint` a row holds the prompt once, and every response sees the prompt and
    itself; in `pairs` the row holds the prompt before every response.
    """

    name: Literal["reward"] = "reward"
    objective: Literal["bradley_terry", "plackett_luce"] = later("bradley_terry")
    margin: Literal["none", "subtract", "scale"] = later(
        "none", description="what the margins of records do to the loss"
    )
    center: float = later(0.0, description="coefficient of the square of the sum of two scores")
    layout: Literal["joint", "pairs"] = "joint"
    drop_last: bool = later(False, description=DROP_LAST)


class Dpo(Value):
    """A loss of preferences, the best response against the worst: DPO (arXiv:2305.18290) or one of
    its relatives, see `DpoLoss`."""

    name: Literal["dpo"] = "dpo"
    objective: Literal[
        "dpo", "ipo", "robust", "hinge", "apo_zero", "apo_down", "simpo", "cpo", "orpo"
    ] = later("dpo")
    beta: float
    gamma: float = later(0.0, description="of simpo: how much higher the better reward should be")
    length_penalty: float = later(0.0, description="reward that each token of a response costs")
    nll: float = Field(description="coefficient of the chosen response's mean cross-entropy")
    label_smoothing: float
    normalize: bool = Field(description="log-probabilities are means over tokens, not sums")
    mask: Literal["none", "formatting"]
    layout: Literal["joint", "pairs"] = "joint"
    drop_last: bool = later(False, description=DROP_LAST)

    @property
    def compares(self) -> bool:
        """Whether it compares the model with a reference."""
        return LOSSES[self.objective].reference


class Kto(Value):
    """Kahneman–Tversky optimization on answers that are rated good or bad (arXiv:2402.01306)."""

    name: Literal["kto"] = "kto"
    beta: float
    desirable_weight: float
    undesirable_weight: float
    mask: Literal["none", "formatting"]
    drop_last: bool = False


class Prm(Value):
    """Binary cross-entropy of the steps of answers, which are right or wrong (arXiv:2305.20050)."""

    name: Literal["prm"] = "prm"
    loss_on: Literal["all", "last"] = Field(
        default="all", description="every step is learned, or the last of each answer"
    )
    drop_last: bool = False


class Grpo(Value):
    """Policy gradients on a model's own answers, by their advantages (arXiv:2402.03300)."""

    name: Literal["grpo"] = "grpo"
    objective: Literal["grpo", "dapo", "dr_grpo", "gspo", "rloo"]
    clip_ratio: tuple[float, float] = Field(
        description="how far the ratio to the writing policy may fall below 1 and rise above it"
    )
    kl: float = Field(description="coefficient of the divergence from the reference")
    max_tokens: int = Field(description="of an answer")
    temperature: float = later(1.0, description="divides the logits")
    mask_truncated: bool = later(
        False, description="answers that max_tokens cuts off are not learned from"
    )


def scores(objective: Any) -> TypeIs[Reward | Prm]:
    """Whether a model has a scalar output for it, and not one for each token."""
    return isinstance(objective, Reward | Prm)


def makes_logits(objective: Any) -> TypeIs[NextToken | Sft]:
    """Whether a model makes all logits of sequences for it, and is not asked about places in
    rows."""
    return isinstance(objective, NextToken) or (
        isinstance(objective, Sft) and objective.counts == "sequences"
    )


Objective = Annotated[
    NextToken | Sft | Distill | Reward | Dpo | Kto | Prm | Grpo, Field(discriminator="name")
]
