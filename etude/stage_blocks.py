"""The models of stages: those of `etude.build`.

Written by `python docs/python_models.py` from the schema of the language; not to be edited.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from .attributes import FROM, Block, Budget, Let, Name, Names, Number, Numbers, Schedule, Text
from .blocks import (
    Adapter,
    DynamicSampling,
    Evaluation,
    Gate,
    Needle,
    Optimizer,
    Precision,
    Profile,
    RopeScaling,
    Spikes,
    Torchtitan,
)


class Stage(Block):
    """What every kind of stage has."""


class Training(Stage):
    """What all kinds of training have."""

    from_: Name | None = FROM
    tokens: Number | None = None
    steps: Number | None = None
    epochs: Number | None = None
    seq_len: Schedule | None = None
    batch: Schedule | None = None
    lr: Schedule | None = None
    lr_scaling: Literal["none", "sqrt", "linear"] | Let | None = None
    data: Schedule | None = None
    parallel: Schedule | None = None
    optimizer: (
        Literal["adamw", "adam", "muon", "adafactor", "lion", "last"] | Optimizer | Let | None
    ) = None
    clip: Schedule | None = None
    balance: Schedule | None = None
    spikes: Spikes | Let | None = None
    precision: Literal["bf16", "fp32", "fp8", "mxfp8", "nvfp4"] | Precision | Let | None = None
    recompute: Literal["none", "selective", "full"] | Budget | Let | None = None
    attention: Literal["flex", "flex_flash", "varlen"] | Let | None = None
    dispatcher: Literal["all_to_all", "deepep", "hybridep", "minimal_async_ep"] | Let | None = None
    adapter: Literal["lora"] | Adapter | Let | None = None
    cluster: Name | None = None
    average: str | None = None
    ema: Number | None = None
    checkpoint: Number | None = None
    export: Literal["bf16", "fp32", "none"] | Let | None = None
    keep: str | int | None = None
    profile: Profile | Let | None = None
    torchtitan: Torchtitan | Let | None = None
    evaluate: Evaluation | Let | None = None


class Train(Training):
    """Next-token training on documents."""

    kind: Literal["train"] = "train"
    model: Name | None = None
    rope_theta: Schedule | None = None
    rope_scaling: Literal["none", "llama"] | RopeScaling | Let | None = None
    tokenizer: Name | None = None
    gate: Gate | None = None
    z_loss: Number | None = None
    sequence_balance_loss: Schedule | None = None
    batch_balance_loss: Schedule | None = None
    router_z_loss: Schedule | None = None
    mtp_loss: Schedule | None = None


class DialogTraining(Training):
    """Training on dialogs, whose batches count them, or the sequences that they are packed into."""


class Sft(DialogTraining):
    """Supervised fine-tuning on dialogs."""

    kind: Literal["sft"] = "sft"
    dialog: Name | None = None
    loss: Literal["assistant", "all"] | Let | None = None
    drop_last: bool | Let | None = None


class Distill(DialogTraining):
    """Distillation: learns what a teacher thinks of the next token of dialogs."""

    kind: Literal["distill"] = "distill"
    teacher: Name
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] | Let | None = None
    temperature: Number | None = None
    top_k: Number | None = None
    on_policy: Number | None = None
    prompts: Name | None = None
    max_tokens: Number | None = None
    refresh: Number | None = None
    dialog: Name | None = None
    loss: Literal["assistant", "all"] | Let | None = None
    drop_last: bool | Let | None = None


class PreferenceTraining(Training):
    """Training on preferences; leaves out pairs whose responses are more alike than `similar`."""

    dialog: Name | None = None
    layout: Literal["joint", "pairs"] | Let | None = None
    drop_last: bool | Let | None = None
    similar: Number | None = None


class Reward(PreferenceTraining):
    """A reward model from preferences."""

    kind: Literal["reward"] = "reward"
    objective: Literal["bradley_terry", "plackett_luce"] | Let | None = None
    margin: Literal["none", "subtract", "scale"] | Let | None = None
    center: Number | None = None


class Dpo(PreferenceTraining):
    """Preference optimization of a language model, by DPO or another loss of pairs."""

    kind: Literal["dpo"] = "dpo"
    reference: Name | None = None
    objective: (
        Literal["dpo", "ipo", "robust", "hinge", "apo_zero", "apo_down", "simpo", "cpo", "orpo"]
        | Let
        | None
    ) = None
    beta: Number | None = None
    gamma: Number | None = None
    nll: Number | None = None
    label_smoothing: Number | None = None
    length_penalty: Number | None = None
    normalize: bool | Let | None = None
    mask: Literal["none", "formatting"] | Let | None = None


class Kto(Training):
    """Preference optimization from answers that are rated good or bad, without pairs."""

    kind: Literal["kto"] = "kto"
    dialog: Name | None = None
    reference: Name | None = None
    beta: Number | None = None
    desirable_weight: Number | None = None
    undesirable_weight: Number | None = None
    mask: Literal["none", "formatting"] | Let | None = None
    drop_last: bool | Let | None = None


class Prm(Training):
    """A process reward model, from answers whose steps are labelled right or wrong."""

    kind: Literal["prm"] = "prm"
    separator: Text = None
    combine: Literal["product", "minimum", "last"] | Let | None = None
    dialog: Name | None = None
    loss: Literal["all", "last"] | Let | None = None
    drop_last: bool | Let | None = None


class Grpo(Training):
    """Reinforcement learning from rewards, relative to other answers to the same prompt."""

    kind: Literal["grpo"] = "grpo"
    group: Number | None = None
    refresh: Number | None = None
    max_tokens: Number
    reward: dict[str, Number] | Name
    objective: Literal["grpo", "dapo", "dr_grpo", "gspo", "rloo"] | Let | None = None
    advantage: Literal["group", "batch", "none"] | Let | None = None
    clip_ratio: Numbers | None = None
    kl: Number | None = None
    reference: Name | None = None
    reference_refresh: Number | None = None
    temperature: Number | None = None
    mask_truncated: bool | Let | None = None
    dynamic_sampling: DynamicSampling | Let | None = None
    dialog: Name | None = None


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: Literal["score"] = "score"
    from_: Name | None = FROM
    data: Names
    seq_len: Number | None = None


class Sample(Stage):
    """Rejection sampling: draws for every prompt; verifiers keep right ones, a judge the best."""

    kind: Literal["sample"] = "sample"
    from_: Name | None = FROM
    prompts: Name
    draws: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    max_tokens: Number
    judge: Name | None = None
    verify: Names | None = None
    keep: Number | None = None
    dialog: Name | None = None


class Checkpoint(Stage):
    """A checkpoint in the middle of a stage, `after` some tokens, steps or percent of it."""

    kind: Literal["checkpoint"] = "checkpoint"
    from_: Name | None = FROM
    after: Number


class Average(Stage):
    """The mean of the weights of other stages."""

    kind: Literal["average"] = "average"
    of: Names
    weights: Numbers | None = None
    export: Literal["bf16", "fp32", "none"] | Let | None = None


class Measuring(Stage):
    """What can be measured of a model: loss, needle, accuracy, reward, right answers and suites of
    tasks."""

    loss: Names | None = None
    seq_len: Number | None = None
    needle: Needle | Let | None = None
    accuracy: Names | None = None
    judge: Name | None = None
    verify: Names | None = None
    prompts: Name | None = None
    draws: Number | None = None
    limit: Number | None = None
    max_tokens: Number | None = None
    temperature: Number | None = None
    dialog: Name | None = None
    suites: dict[str, str | Let | list[str | Let]] | Let | None = None
    tasks: Text = None


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: Literal["best"] = "best"
    of: Names


class Ensemble(Stage):
    """Several reward models that judge as one (arXiv:2310.02743)."""

    kind: Literal["ensemble"] = "ensemble"
    of: Names
    combine: Literal["mean", "minimum", "minus_std", "minus_variance"] | Let | None = None
    penalty: Number | None = None


class Evaluate(Measuring):
    """Measures a stage's result."""

    kind: Literal["evaluate"] = "evaluate"
    from_: Name | None = FROM


AnyStage: TypeAlias = Annotated[
    Train
    | Sft
    | Distill
    | Reward
    | Dpo
    | Kto
    | Prm
    | Grpo
    | Score
    | Sample
    | Checkpoint
    | Average
    | Best
    | Ensemble
    | Evaluate,
    Field(discriminator="kind"),
]
