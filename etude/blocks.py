"""The models of blocks and groups: those of `etude.build`.

Written by `python docs/python_models.py` from the schema of the language; not to be edited.
"""

from typing import Literal

from .attributes import (
    EXCEPT,
    FIELDS,
    SCHEMA,
    Attributes,
    Block,
    Flag,
    Let,
    Name,
    Names,
    Number,
    Numbers,
    Schedule,
    Text,
    Texts,
)


class Tracker(Attributes):
    """A tracker of experiments, in which every stage is a run."""

    kind: Literal["wandb", "mlflow", "trackio"] = "wandb"
    project: Text = None
    group: Text = None
    entity: Text = None


class Header(Block):
    """The `recipe` block."""

    title: Text = None
    cite: Text = None
    seed: Number | None = None
    notes: Text = None
    tracking: (
        Literal["wandb", "mlflow", "trackio", "tensorboard"]
        | Tracker
        | Let
        | list[Literal["wandb", "mlflow", "trackio", "tensorboard"] | Tracker | Let]
        | None
    ) = None


class RopeScaling(Attributes):
    """How rotary positions are stretched: by `factor` over an `original` length."""

    kind: Literal["yarn", "llama"] = "yarn"
    factor: Number | None = None
    original: Number | None = None
    low: Number | None = None
    high: Number | None = None


class Latent(Block):
    """Multi-head latent attention: widths."""

    queries: Number | None = None
    keys: Number | None = None
    plain: Number | None = None
    rotary: Number | None = None
    values: Number | None = None


class Experts(Block):
    """Feed-forward layers that are mixtures of experts."""

    count: Number | None = None
    active: Number | None = None
    shared: Number | None = None
    ffn: Number | None = None
    dense: Number | None = None
    groups: Number | None = None
    groups_used: Number | None = None
    scale: Number | None = None
    score: Literal["softmax", "sigmoid"] | Let | None = None
    normalized: bool | Let | None = None
    balance: Number | None = None
    shared_gate: bool | Let | None = None


class Parts(Block):
    """What the blocks of a `decoder` consist of. What is left out is as in the size, else as in
    Llama."""

    norm: Literal["rms", "rms_plain", "layer", "layer_scale", "layer_plain"] | Let | None = None
    norms: Literal["before", "after", "both"] | Let | None = None
    qk_norm: Literal["none", "head", "width", "plain", "layer", "layers"] | Let | None = None
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu"] | Let | None = None
    gated: bool | Let | None = None
    biases: Literal["none", "qkv", "attention", "ffn", "but_qkv", "all"] | Let | None = None
    parallel: Literal["none", "one", "two"] | Let | None = None
    rotary: Number | None = None
    rotary_skips: Number | None = None
    window_skips: Number | None = None
    learned: Number | None = None
    alibi: bool | Let | None = None
    attention_cap: Number | None = None
    logit_cap: Number | None = None
    scaled: bool | Let | None = None
    embedding_norm: bool | Let | None = None
    attention_scale: Number | None = None
    embedding_scale: Number | None = None
    residual_scale: Number | None = None
    logit_scale: Number | None = None
    window_theta: Number | None = None
    qk_norm_late: bool | Let | None = None
    qkv_clip: Number | None = None
    output_bias: bool | Let | None = None
    window_first: bool | Let | None = None
    window_scaled: bool | Let | None = None
    gate: bool | Let | None = None
    linear_heads: Number | None = None
    linear_key_heads: Number | None = None
    linear_key_dim: Number | None = None
    linear_value_dim: Number | None = None
    linear_convolution: Number | None = None
    linear_skips: Number | None = None


class Model(Block):
    """An architecture, of a published size or your own shape, and its weights, if it has any."""

    family: Name | None = None
    size: Text = None
    layers: Number | None = None
    dim: Number | None = None
    heads: Number | None = None
    kv_heads: Number | None = None
    head_dim: Number | None = None
    ffn: Number | None = None
    vocab: Number | None = None
    rope_theta: Number | None = None
    rope_scaling: Literal["none", "llama"] | RopeScaling | Let | None = None
    tied: bool | Let | None = None
    norm_eps: Number | None = None
    window: Number | None = None
    latent: Latent | Let | None = None
    experts: Experts | Let | None = None
    parts: Parts | Let | None = None
    mtp: Number | None = None
    weights: Text = None
    hub: Text = None
    revision: Text = None
    context: Number | None = None
    head: Literal["tokens", "score"] | Let | None = None


class TokenizerTraining(Block):
    """A tokenizer to be trained."""

    on: Names
    vocab: Number


class Tokenizer(Block):
    """Where a tokenizer comes from."""

    file: Text = None
    hub: Text = None
    bytes: Flag = False
    train: TokenizerTraining | Let | None = None


class Fields(Block):
    """Which field of a record, and of its messages, holds what, and which is ignored."""

    text: Text = None
    messages: Text = None
    prompt: Text = None
    completion: Text = None
    chosen: Text = None
    answer: Text = None
    label: Text = None
    rejected: Text = None
    edited: Text = None
    ranked: Text = None
    margin: Text = None
    completions: Text = None
    labels: Text = None
    tools: Text = None
    system: Text = None
    role: Text = None
    content: Text = None
    ignore: Texts = None


class Fim(Block):
    """Documents whose middle comes last: how many, in which order, and the tokens between parts."""

    rate: Number
    order: Literal["psm", "spm", "both"] | Let | None = None
    prefix: Text = None
    suffix: Text = None
    middle: Text = None


class Dataset(Block):
    """Where documents, dialogs, preferences, ratings, solutions or prompts come from.

    Attributes:
        filters: statements such as `keep 10% where quality.loss > 4.0`.
    """

    files: Texts = None
    hub: Text = None
    config: Text = None
    split: Text = None
    sample: (
        Literal["python_docs", "python_code", "python_functions", "arithmetic", "needles"]
        | Let
        | None
    ) = None
    tokenized: Texts = None
    layout: Literal["megatron", "datatrove", "npy", "uint16", "uint32"] | Let | None = None
    documents: Number | None = None
    skip: Number | None = None
    fields_: Fields | Let | None = FIELDS
    tokens: Number | None = None
    holdout: Number | None = None
    bad_lines: Number | None = None
    long: Literal["refuse", "drop", "truncate"] | Let | None = None
    kind: (
        Literal["documents", "dialogs", "preferences", "ratings", "solutions", "prompts"]
        | Let
        | None
    ) = None
    pairs: Number | None = None
    ratings: Number | None = None
    solutions: Number | None = None
    dialogs: Number | None = None
    fim: Fim | Let | None = None
    awaited: Flag = False
    candidates: Name | None = None
    filters: list[str] = []


class TrainingFields(Block):
    """torchtitan's section `training`."""

    enable_cpu_offload: bool | Let | None = None
    disable_cuda_graphs: bool | Let | None = None
    gc_freq: Number | None = None
    gc_debug: bool | Let | None = None


class ParallelismFields(Block):
    """torchtitan's section `parallelism`."""

    fsdp_reshard_after_forward: Literal["default", "always", "never"] | Let | None = None
    enable_fsdp_symm_mem: bool | Let | None = None
    enable_sequence_parallel: bool | Let | None = None
    pipeline_parallel_first_stage_less_layers: Number | None = None
    pipeline_parallel_last_stage_less_layers: Number | None = None


class CompileFields(Block):
    """torchtitan's section `compile`."""

    enable: bool | Let | None = None
    components: Texts = None
    backend: Text = None
    enable_async_tensor_parallel: bool | Let | None = None


class CommFields(Block):
    """torchtitan's section `comm`."""

    init_timeout_seconds: Number | None = None
    train_timeout_seconds: Number | None = None
    trace_buf_size: Number | None = None


class DebugFields(Block):
    """torchtitan's section `debug`."""

    deterministic: bool | Let | None = None
    deterministic_warn_only: bool | Let | None = None
    detect_anomaly: bool | Let | None = None
    moe_force_load_balance: bool | Let | None = None
    spmd_typechecking: bool | Let | None = None
    enable_structured_logging: bool | Let | None = None
    print_config: bool | Let | None = None


class OptimizerFields(Block):
    """torchtitan's section `optimizer`."""

    implementation: Literal["foreach", "fused"] | Let | None = None


class Torchtitan(Block):
    """Fields of torchtitan's configuration, by section."""

    training: TrainingFields | Let | None = None
    parallelism: ParallelismFields | Let | None = None
    compile: CompileFields | Let | None = None
    comm: CommFields | Let | None = None
    debug: DebugFields | Let | None = None
    optimizer: OptimizerFields | Let | None = None


class Cluster(Block):
    """Nodes and their devices."""

    nodes: Number | None = None
    gpus: str | None = None
    cpus: Number | None = None
    price: Number | None = None
    mtbf: Number | None = None
    restart: Number | None = None
    save: Number | None = None
    torchtitan: Torchtitan | Let | None = None


class Dialog(Block):
    """A chat protocol: a built-in one, a Jinja template, or your own."""

    protocol: Literal["llama3", "chatml"] | Let | None = None
    template: Text = None
    header: Text = None
    end_of_turn: Text = None
    end_of_message: Text = None
    roles: Names | None = None
    system: Text = None


class Verifier(Block):
    """A program that scores an answer: 1 if it is right, 0 if it is not."""

    kind: (
        Literal[
            "math",
            "exact",
            "choice",
            "regex",
            "format",
            "length",
            "json_schema",
            "python_tests",
            "ifeval",
        ]
        | Let
    )
    data: Names | None = None
    extract: Text = None
    ignore_case: bool | Let | None = None
    pattern: Text = None
    options: Texts = None
    schema_: Text = SCHEMA
    most: Number | None = None
    least: Number | None = None
    soft: Number | None = None


class Optimizer(Attributes):
    """The optimizer's settings. Those of `muon` that AdamW has too are those of the AdamW that the
    parameters besides matrices learn by; the weight decay is that of both."""

    kind: Literal["adamw", "adam", "muon", "adafactor", "lion"] = "adamw"
    betas: Numbers | None = None
    weight_decay: Schedule | None = None
    decay: Literal["all", "matrices"] | Let | None = None
    eps: Number | None = None
    momentum: Number | None = None
    nesterov: bool | Let | None = None
    ns_steps: Number | None = None
    adjust_lr: Literal["match_rms_adamw", "original", "spectral_unclamped"] | Let | None = None
    qk_clip: Number | None = None
    beta2_decay: Number | None = None
    eps1: Number | None = None
    eps2: Number | None = None
    d: Number | None = None
    scale_parameter: bool | Let | None = None


class Spikes(Block):
    """What happens to a step whose gradient is far larger than usual."""

    do: Literal["skip", "rollback", "stop", "nothing"] | Let
    above: Number | None = None
    back: Number | None = None
    at_most: Number | None = None


class Precision(Attributes):
    """What the matrix products of a stage are computed in; the rest of fp8, mxfp8 and nvfp4 is
    bf16."""

    kind: Literal["fp8", "mxfp8", "nvfp4"] = "fp8"
    recipe: Literal["rowwise", "rowwise_with_gw_hp"] | Let | None = None
    except_: Names | None = EXCEPT
    bf16_first: Number | None = None
    bf16_last: Number | None = None


class Adapter(Attributes):
    """Low-rank adapters (LoRA, arXiv:2106.09685): beside a frozen matrix W, the product of a matrix
    B of `rank` columns and a matrix A of `rank` rows."""

    kind: Literal["lora"] = "lora"
    rank: Number | None = None
    alpha: Number | None = None
    over: Literal["rank", "sqrt_rank"] | Let | None = None
    on: Names | None = None


class Profile(Block):
    """What torchtitan's profiler records of a stage."""

    steps: Numbers
    memory: bool | Let | None = None
    ranks: Literal["first", "all"] | Let | None = None


class Evaluation(Block):
    """Losses on held-out data, measured while a stage trains, and what follows from them."""

    every: Number
    loss: Names
    tokens: Number | None = None
    by: Name | None = None
    patience: Number | None = None
    keep: Literal["last", "best"] | Let | None = None


class Needle(Block):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: Numbers | None = None
    depths: Number | None = None
    samples: Number | None = None


class Gate(Block):
    """What has to hold before a sequence length may be increased.

    Attributes:
        require: conditions such as `loss(short) <= 105% of start`.
        otherwise: as in `extend 100k tokens at most 2 times`.
    """

    require: list[str]
    otherwise: str | None = None
    needle: Needle | Let | None = None


class DynamicSampling(Block):
    """How prompts that teach nothing are replaced (arXiv:2503.14476, §3.2)."""

    most: Number | None = None
    by: Names | None = None
