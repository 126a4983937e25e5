"""The attributes of stages that learn the probabilities of another model."""

from typing import ClassVar

from . import kinds as k
from . import number_kinds as nk
from .declaration import attribute
from .training_blocks import DIALOG, DROP_LAST, LOSS_ON, WITH_WEIGHTS, Training


class Distill(Training):
    """Distillation: learns what a teacher thinks of the next token of dialogs."""

    kind: ClassVar[str] = "distill"
    data_kind: ClassVar[str] = "dialogs"
    apart: ClassVar[tuple[str, ...]] = ("pipeline", "context", "tensor")
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
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    loss_on: str = LOSS_ON
    drop_last: bool = DROP_LAST
