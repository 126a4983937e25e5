"""The attributes of stages that learn the probabilities of another model."""

from fractions import Fraction
from typing import ClassVar

from . import kinds as k
from . import number_kinds as nk
from .declaration import attribute
from .training_blocks import DIALOG, DROP_LAST, LOSS_ON, WITH_WEIGHTS, DialogTraining


class Distill(DialogTraining):
    """Distillation: learns what a teacher thinks of the next token of dialogs."""

    kind: ClassVar[str] = "distill"
    apart: ClassVar[tuple[str, ...]] = ("pipeline", "context", "tensor")
    likely: ClassVar[bool] = True

    @property
    def uniform(self) -> bool:
        return False

    teacher: str = attribute(
        k.Ref(*WITH_WEIGHTS),
        doc="the model whose probabilities are learned; it has the same tokenizer",
    )
    divergence: str = attribute(
        k.OneOf("forward_kl", "reverse_kl", "jsd"),
        "forward_kl",
        doc="how far the student is from the teacher: the [loss](post_training.md#distillation)",
    )
    temperature: float = attribute(
        nk.Real(above=0), 1.0, doc="divides the logits of both: above 1, unlikely tokens count more"
    )
    top_k: int = attribute(
        nk.Whole(most=nk.MOST),
        64,
        doc="how many of the teacher's likeliest tokens are kept of each place; all others are one",
    )
    on_policy: Fraction | None = attribute(
        nk.Share(all=True),
        None,
        otherwise="0%",
        doc="share of a batch that the student writes itself; see "
        "[below](#learning-from-ones-own-text)",
    )
    prompts: str | None = attribute(
        k.Ref("dataset"),
        None,
        needs=("on_policy",),
        takes="dataset of prompts",
        doc="what it answers then; required with `on_policy`",
    )
    max_tokens: int | None = attribute(
        nk.Whole("tokens"),
        None,
        needs=("on_policy",),
        doc="longest answer; required with `on_policy`",
    )
    refresh: int | None = attribute(
        nk.Whole("steps"),
        None,
        needs=("on_policy",),
        otherwise="1",
        doc="steps after which it writes new answers",
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    loss_on: str = LOSS_ON
    drop_last: bool = DROP_LAST

    @property
    def each_cut(self) -> int:
        return (self.refresh or 1) if self.on_policy else 0
