"""The attributes of stages that learn from rewards of their own answers."""

from typing import ClassVar

from ..schedule import Schedule
from . import convert_schedule as cs
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .declaration import Declaration, attribute
from .training_blocks import DIALOG, WITH_WEIGHTS, Training


class DynamicSampling(Declaration):
    """How prompts that teach nothing are replaced (arXiv:2503.14476, §3.2)."""

    most: int = attribute(
        nk.Whole(least=2, most=nk.MOST),
        10,
        doc="the most prompts drawn for each that a step learns from",
    )
    by: list[str] | None = attribute(
        k.Name("verifier", many=True),
        None,
        otherwise="all verifiers of `reward`",
        doc="the verifiers that tell whether a prompt's answers differ",
    )


class Grpo(Training):
    """Reinforcement learning from rewards, relative to other answers to the same prompt."""

    kind: ClassVar[str] = "grpo"
    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("steps",),)
    data_kind: ClassVar[str] = "prompts"
    rows: ClassVar[str] = "answers"
    measured: ClassVar[tuple[str, ...]] = ("dialogs", "documents")
    data: Schedule | None = attribute(
        cs.ScheduleOf(cs.Mixture()), None, doc="shares of the data sets of prompts"
    )
    seq_len: Schedule | None = attribute(
        cs.ScheduleOf(cs.SeqLen()), None, doc="the most tokens of a prompt and its answer"
    )
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Prompts()), None, doc="prompts per step, each with `group` answers"
    )
    group: int = attribute(nk.Whole(least=2, most=nk.MOST), 8, doc="answers to each prompt")
    refresh: int = attribute(
        nk.Whole("steps"),
        1,
        doc="steps after which the model writes new answers; see [below](#refresh)",
    )
    max_tokens: int = attribute(nk.Whole("tokens"), doc="longest answer")
    reward: dict[str, float] = attribute(
        g.Weighted("verifier", *WITH_WEIGHTS),
        doc="the verifiers and reward models that score an answer, and their weights",
    )
    objective: str = attribute(
        k.OneOf("grpo", "dapo", "dr_grpo", "gspo", "rloo"),
        "grpo",
        doc="the [loss](post_training.md#reinforcement-learning)",
    )
    advantage: str | None = attribute(
        k.OneOf("group", "batch", "none"),
        None,
        otherwise="`none` with `dr_grpo` and `rloo`, else `group`",
        doc="the standard deviation by which rewards are divided: that of the group or of the "
        "step's whole batch; `none`: they are not",
    )
    clip_ratio: tuple[float, ...] = attribute(
        nk.ClipRatio(),
        (0.2, 0.2),
        doc="how far the probability of a token may fall below and rise above that of the model "
        "that wrote it, as shares",
    )
    kl: float = attribute(
        nk.Real(least=0), 0.0, doc="coefficient of the divergence from `reference`"
    )
    reference: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        needs=("kl",),
        otherwise="`from`",
        doc="the model that the policy should stay near",
    )
    reference_refresh: int | None = attribute(
        nk.Whole("steps"),
        None,
        needs=("kl",),
        otherwise="never",
        doc="steps after which the policy as it is then becomes the reference; a multiple of "
        "`refresh`",
    )
    temperature: float = attribute(
        nk.Real(above=0),
        1.0,
        doc="divides the logits, both where answers are drawn and where their probabilities are "
        "computed",
    )
    mask_truncated: bool = attribute(
        k.Flag(),
        False,
        doc="answers that `max_tokens` cuts off are not learned from; their rewards count in their "
        "groups",
    )
    dynamic_sampling: DynamicSampling | None = attribute(
        g.Group(DynamicSampling, "most = 10"),
        None,
        otherwise="none",
        doc="other prompts take the place of those whose answers are all right or all wrong; see "
        "[below](#dynamic_sampling)",
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )

    @property
    def each(self) -> int:
        return self.group

    @property
    def each_cut(self) -> int:
        return self.refresh
