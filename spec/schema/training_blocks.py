"""The attributes of stages that train, and of the groups in them."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from ..quantity import Quantity
from ..schedule import Schedule
from . import convert_schedule as cs
from . import group_kinds as g
from . import kinds as k
from . import number_kinds as nk
from .adapter import ADAPTER, Adapter
from .data_blocks import PROTOCOLS
from .declaration import Declaration, attribute, statement
from .evaluation import EVALUATION, Evaluation
from .model_blocks import ROPE_SCALING, RopeScaling
from .optimizer import OPTIMIZERS, Optimizer
from .precision import ATTENTION, DISPATCHER, PRECISION, Precision, Recompute
from .preference_losses import LOSSES, MEANS, UsualBeta, in_words
from .stage_groups import POLYAK, Gate, Polyak, Profile, Spikes
from .torchtitan_fields import TORCHTITAN, Torchtitan

WITH_WEIGHTS = ("stage", "model")


DIALOG = k.Name("dialog", known=PROTOCOLS)


EXPORT = k.OneOf("bf16", "fp32", "none")
EXPORTED = "the training precision, unless another stage continues from it"
EXPORTS = "export the result for transformers, to `models/STAGE`; `none`: no export"


class Stage(Declaration):
    """What every kind of stage has.

    Attributes:
        has_weights: whether its result is a model.
        writes_text: whether that model generates text, if the stage trained it.
        continued: whether a stage below continues from it by default.
        scores: whether it scores data for filters; it reads the data unfiltered.
        judges: whether it scores answers as several reward models do together.
        moment: whether it is a point in another stage and has no job of its own.
        offers: what it offers to stages as data: the suffix of its name → the kind of data.
        variant: the variant that it was taken from.
    """

    kind: ClassVar[str]
    has_weights: ClassVar[bool] = True
    writes_text: ClassVar[bool] = True
    continued: ClassVar[bool] = True
    scores: ClassVar[bool] = False
    judges: ClassVar[bool] = False
    moment: ClassVar[bool] = False
    offers: ClassVar[Mapping[str, str]] = {}
    variant: str = ""


class Training(Stage):
    """What all kinds of training have.

    Attributes:
        data_kind: what they train on.
        rows: what a batch counts, in the plural, if it may count but one thing.
        measured: the kinds of data whose loss it can measure, its own first.
        apart: kinds of parallelism that it cannot use, where rows are not padded.
        likely: whether its loss asks about several tokens of a place.
        forwards: forward passes over other rows of the same number, beside those of training.
        separator: what stands between the steps of an answer, if it scores each of them.
        combine: how these scores become one.
    """

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("tokens", "steps", "epochs"),
        ("average", "ema"),
    )

    data_kind: ClassVar[str] = "documents"
    rows: ClassVar[str] = "sequences"
    measured: ClassVar[tuple[str, ...]] = ("documents",)
    apart: ClassVar[tuple[str, ...]] = ()
    likely: ClassVar[bool] = False
    forwards: ClassVar[Fraction] = Fraction(0)

    model: str | None = None
    rope_theta: Schedule | None = None
    rope_scaling: RopeScaling | None = None
    tokenizer: str | None = None
    gate: Gate | None = None
    separator: str | None = None
    combine: str | None = None
    from_: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        name="from",
        otherwise="the nearest stage above that has weights",
        doc="the result to continue from",
    )
    tokens: int | None = attribute(nk.Whole("tokens"), None, doc="length")
    steps: int | None = attribute(nk.Whole("steps"), None, doc="length")
    epochs: Quantity | None = attribute(
        nk.Amount("epochs"),
        None,
        doc="length: passes over all sources in `data`, see [epochs](#epochs)",
    )
    seq_len: Schedule | None = attribute(
        cs.ScheduleOf(cs.SeqLen()), None, doc="sequence length; changes in steps"
    )
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Batch()), None, doc="global batch; a whole number of sequences"
    )
    lr: Schedule | None = attribute(cs.ScheduleOf(cs.Rate()), None, doc="learning rate")
    lr_scaling: str = attribute(
        k.OneOf("none", "sqrt", "linear"),
        "none",
        doc="how the rate follows a batch that changes: [see below](#rates-that-follow-the-batch)",
    )
    data: Schedule | None = attribute(
        cs.ScheduleOf(cs.Mixture()), None, doc="shares of the sources"
    )
    parallel: Schedule | None = attribute(
        cs.ScheduleOf(cs.Placement()),
        None,
        otherwise="`{ }`: sharded data parallelism on all ranks",
        doc="see [placements](#placements)",
    )
    optimizer: Optimizer | str | None = attribute(
        OPTIMIZERS, None, otherwise="`adamw`", doc="see [`optimizer`](#optimizer)"
    )
    clip: float | Schedule | None = attribute(
        cs.Setting(nk.Real(above=0), off="1e9, which no norm exceeds"),
        None,
        otherwise="1",
        inherits=1.0,
        doc="maximum gradient norm",
    )
    balance: float | Schedule | None = attribute(
        cs.Setting(nk.Real(least=0)),
        None,
        otherwise="the model's",
        inherits=None,
        doc="step size of the routing bias, in place of `balance` of the model's `experts`",
    )
    spikes: Spikes | None = attribute(
        g.Group(Spikes, "do = skip"),
        None,
        otherwise="all steps are taken; a gradient that is not finite stops the run",
        inherits=None,
        doc="what happens to a step with a [spike](#spikes) of the gradient",
    )
    precision: Precision | None = attribute(
        PRECISION,
        None,
        otherwise="`bf16` on GPUs, `fp32` on CPUs",
        doc="[precision](#precision) of the forward and backward passes; weights and moments are "
        "always fp32",
    )
    recompute: str | None = attribute(
        Recompute(),
        None,
        otherwise="`none`",
        doc="activations [recomputed](#recompute) in the backward pass",
    )
    attention: str | None = ATTENTION
    dispatcher: str | None = DISPATCHER
    adapter: Adapter | None = attribute(
        ADAPTER,
        None,
        otherwise="none: all weights are trained",
        doc="train [adapters](#adapter) and freeze the weights; not inherited",
    )
    cluster: str | None = attribute(
        k.Name("cluster"), None, otherwise="the only one", doc="where the stage runs"
    )
    average: Polyak | None = attribute(POLYAK, None, doc="see [averaging](#averaging)")
    ema: float | None = attribute(
        nk.Real(above=0, below=1),
        None,
        otherwise="none",
        doc="decay of the [exponential moving average](#averaging) of the weights that is the "
        "stage's result, such as 0.999; not inherited",
    )
    checkpoint: Quantity | None = attribute(
        nk.Every(),
        None,
        otherwise="every 20 minutes",
        doc="how often a checkpoint is written; changes no result",
    )
    export: str | None = attribute(EXPORT, None, otherwise=EXPORTED, doc=EXPORTS)
    keep: nk.Kept | None = attribute(
        nk.Keep(),
        None,
        otherwise="the last two",
        doc="which checkpoints to keep while a job runs; changes no result",
    )
    profile: Profile | None = attribute(
        g.Group(Profile, "steps = [10..12]"),
        None,
        doc="see [`profile`](#profile); changes no result",
    )
    torchtitan: Torchtitan | None = attribute(
        TORCHTITAN,
        None,
        inherits=None,
        doc="see [`torchtitan`](#torchtitan); a group replaces the one of the stage before",
    )
    evaluate: Evaluation | None = attribute(
        EVALUATION, None, doc="losses during training, see [`evaluate`](#evaluate); not inherited"
    )

    @property
    def unplaceable(self) -> tuple[str, ...]:
        """Kinds of parallelism that it cannot use."""
        rows = ("pipeline", "context") if self.padded else ()
        whole = ("context",) if self.attention == "varlen" else ()
        return tuple(dict.fromkeys((*self.apart, *rows, *whole)))

    @property
    def averages(self) -> bool:
        """Whether its result is a mean of weights and not the last ones."""
        return self.average is not None or self.ema is not None

    @property
    def counts(self) -> str:
        """What the batch of this stage counts, in the plural."""
        return self.rows

    @property
    def padded(self) -> bool:
        """Whether a row is as long as what it holds, and not always of the same length."""
        return self.counts != Training.rows

    @property
    def uniform(self) -> bool:
        """Whether all rows have one length, and the model makes logits of all of them."""
        return not self.padded

    @property
    def each(self) -> int:
        """Rows of each thing that a batch counts in the spec."""
        return 1

    @property
    def each_cut(self) -> int:
        """Steps after which a new job begins, whatever changes; 0: none does."""
        return 0


class Train(Training):
    """Next-token training on documents."""

    kind: ClassVar[str] = "train"
    ways: ClassVar[tuple[tuple[str, ...], ...]] = (*Training.ways, ("model", "from"))
    data_kind: ClassVar[str] = "documents"
    model: str | None = attribute(
        k.Name("model"),
        None,
        doc="start from random weights, or from the model's published weights; excludes `from`",
    )
    rope_theta: Schedule | None = attribute(
        cs.ScheduleOf(cs.Theta()),
        None,
        otherwise="the model's",
        doc="RoPE base; changes in steps",
    )
    rope_scaling: RopeScaling | None = attribute(
        ROPE_SCALING,
        None,
        otherwise="the model's",
        doc="how positions are [scaled](#yarn-and-llama-of-rope_scaling) from this stage on",
    )
    tokenizer: str | None = attribute(
        k.Name("tokenizer"),
        None,
        otherwise="the only one",
        doc="must be the same for all stages of a lineage",
    )
    z_loss: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="0",
        inherits=None,
        doc="coefficient of [log² Z](#z_loss) in the loss, such as 1e-4",
    )
    sequence_balance_loss: float | Schedule | None = attribute(
        cs.Setting(nk.Real(least=0)),
        None,
        otherwise="0",
        inherits=None,
        doc="coefficient of the [loss of a router](#losses-of-routers) whose experts have unequal "
        "loads within a sequence, such as 1e-4",
    )
    batch_balance_loss: float | Schedule | None = attribute(
        cs.Setting(nk.Real(least=0)),
        None,
        otherwise="0",
        inherits=None,
        doc="the same within a batch, such as 0.01",
    )
    router_z_loss: float | Schedule | None = attribute(
        cs.Setting(nk.Real(least=0)),
        None,
        otherwise="0",
        inherits=None,
        doc="coefficient of log² Z of [routers](#losses-of-routers), such as 0.001",
    )
    mtp_loss: float | Schedule | None = attribute(
        cs.Setting(nk.Real(least=0)),
        None,
        otherwise="0.3 where the model has `mtp`",
        inherits=None,
        doc="weight of the loss of [further tokens](#multi-token-prediction); 0: the modules that "
        "predict them are left out from here on",
    )
    gate: Gate | None = attribute(
        g.Block("gate seq_len { require needle >= 90% }", Gate), None, doc="see [gates](#gates)"
    )


LOSS_ON: Any = attribute(
    k.OneOf("assistant", "all", foreign="loss"),
    "assistant",
    name="loss",
    doc="learn the assistant's content and its end tokens, or every token",
)
DROP_LAST: Any = attribute(
    k.Flag(),
    False,
    doc="skip the records after the last full batch of an epoch; see [below](#drop_last)",
)


class DialogTraining(Training):
    """Training on dialogs, whose batches count them, or the sequences that they are packed into.

    Attributes:
        inherits_dialogs: whether the stage that it continues counts dialogs.
    """

    data_kind: ClassVar[str] = "dialogs"
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Dialogs()),
        None,
        doc="global batch; a whole number of dialogs, or of the sequences that these are packed "
        "into, see [below](#batches-of-dialogs)",
    )
    inherits_dialogs: bool = False

    @property
    def counts(self) -> str:
        units = self.batch.units if self.batch else set()
        return (
            cs.DIALOGS
            if cs.DIALOGS in units or (self.inherits_dialogs and not units)
            else self.rows
        )


class Sft(DialogTraining):
    """Supervised fine-tuning on dialogs."""

    kind: ClassVar[str] = "sft"
    measured: ClassVar[tuple[str, ...]] = ("dialogs", "documents")
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    loss_on: str = LOSS_ON
    drop_last: bool = DROP_LAST


class PreferenceTraining(Training):
    """Training on preferences; leaves out pairs whose responses are more alike than `similar`."""

    data_kind: ClassVar[str] = "preferences"
    rows: ClassVar[str] = "pairs"
    measured: ClassVar[tuple[str, ...]] = ("preferences",)
    batch: Schedule | None = attribute(
        cs.ScheduleOf(cs.Pairs()), None, doc="preferences per step; inherited"
    )
    dialog: str | None = attribute(
        DIALOG, None, otherwise="see [`dialog`](#dialog)", doc="the protocol"
    )
    layout: str = attribute(
        k.OneOf("joint", "pairs"),
        "joint",
        doc="`joint`: the prompt once, and each response sees only it and itself; `pairs`: the "
        "prompt before every response, as always with linear attention. The result is the same",
    )
    drop_last: bool = DROP_LAST
    similar: Fraction | None = statement(
        g.Alike(),
        None,
        doc="drops responses that are more similar than this",
    )


class Reward(PreferenceTraining):
    """A reward model from preferences."""

    kind: ClassVar[str] = "reward"
    writes_text: ClassVar[bool] = False
    objective: str | None = attribute(
        k.OneOf("bradley_terry", "plackett_luce"),
        None,
        otherwise="`bradley_terry`",
        doc="the [loss](post_training.md#the-reward-model): of every ordered pair, or of the whole "
        "ranking",
    )
    margin: str | None = attribute(
        k.OneOf("none", "subtract", "scale"),
        None,
        otherwise="`none`",
        doc="what a record's field `margin` does, by which its better response is better: it is "
        "subtracted from the difference of scores, or the loss is multiplied by it",
    )
    center: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise="0",
        doc="coefficient of the square of the sum of a pair's scores, which keeps their mean near "
        "0, such as 0.01",
    )


MASK: Any = attribute(
    k.OneOf("none", "formatting"),
    "none",
    doc="`formatting` excludes headers and terminators of responses from the loss",
)


class Dpo(PreferenceTraining):
    """Preference optimization of a language model, by DPO or another loss of pairs."""

    kind: ClassVar[str] = "dpo"
    measured: ClassVar[tuple[str, ...]] = ("preferences", "dialogs", "documents")
    reference: str | None = attribute(
        k.Ref(*WITH_WEIGHTS),
        None,
        otherwise="`from`",
        doc="the model that the policy should stay near, if the loss has one",
    )
    objective: str = attribute(
        k.OneOf(*LOSSES), "dpo", doc="the [loss](post_training.md#losses-of-preferences)"
    )
    beta: float | None = attribute(
        nk.Real(above=0),
        None,
        otherwise=in_words("beta"),
        doc="β, how near to the reference; without one, the scale of rewards; with `orpo`, the "
        "coefficient of the odds ratio",
    )
    gamma: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise=in_words("gamma"),
        doc="γ of `simpo`, by how much the chosen response's reward should be higher",
    )
    nll: float | None = attribute(
        nk.Real(least=0),
        None,
        otherwise=in_words("nll"),
        doc="coefficient of the chosen response's mean cross-entropy",
    )
    label_smoothing: float = attribute(
        nk.Real(least=0, below=0.5),
        0.0,
        doc="assumed share of wrong labels",
    )
    length_penalty: float = attribute(
        nk.Real(least=0),
        0.0,
        doc="how much reward each token of a response costs, of `dpo`",
    )
    normalize: bool | None = attribute(
        k.Flag(),
        None,
        otherwise=in_words("normalize"),
        doc="log-probabilities are means over tokens, not sums",
    )
    mask: str = MASK

    @property
    def usual_beta(self) -> UsualBeta:
        """What β usually is: with means over tokens, rewards need a larger one than with sums."""
        loss = LOSSES[self.objective]
        return MEANS if self.normalize and loss.normalize is None else loss.usual
