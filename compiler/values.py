"""Values that the passes make and that the plan holds unchanged.

They are records that pydantic can adopt: checking a spec builds no plan and must not wait for
pydantic.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, get_type_hints

from ..spec.record import MISSING, Record, field, fields, replace
from ..spec.schedule import Shape
from . import curves

ADAFACTOR = "Adafactor"
"""torch's name of an optimizer, which torchtitan lacks."""
LION = "Lion"
"""The name of an optimizer in pytorch-optimizer, which torch and torchtitan lack."""
ROUTER_LOSSES = ("sequence_balance_loss", "batch_balance_loss", "router_z_loss")
"""Losses of the routers of experts: attributes of a stage, and fields of its schedule."""
BALANCE_LOSSES = ROUTER_LOSSES[:2]
"""Those that balance the load of experts."""
LATER = "later"
"""The metadata of a field that was added later."""


def later(default: Any) -> Any:
    """A field that was added later: at its default it is not written, so existing plans, and with
    them the keys of jobs, do not change."""
    return field(default=default, metadata=LATER)


class Value(Record):
    """A record that the plan's models can hold: read from JSON, written as JSON, in the schema."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def as_dict(self) -> dict[str, Any]:
        """The fields, including those of nested values."""
        own = fields(self)
        return {
            name: item.as_dict() if isinstance(item, Value) else item
            for name, item in vars(self).items()
            if own[name].metadata != LATER or item != own[name].default
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema as core

        types = get_type_hints(cls)
        arguments = []
        for name, of in fields(cls).items():
            schema = handler.generate_schema(types[name])
            if of.default is not MISSING:
                schema = core.with_default_schema(schema, default=of.default)
            arguments.append(core.dataclass_field(name, schema))
        return core.dataclass_schema(
            cls,
            core.dataclass_args_schema(cls.__name__, arguments),
            list(fields(cls)),
            ref=f"{cls.__module__}.{cls.__qualname__}",
            config=core.CoreConfig(title=cls.__name__, extra_fields_behavior="forbid"),
            serialization=core.plain_serializer_function_ser_schema(cls.as_dict),
        )


class Latent(Value):
    """Latent attention (multi-head latent attention, arXiv:2405.04434 §2.1): widths.

    Queries and keys of a head are `plain` + `rotary` wide, its values `values`.
    """

    queries: int  # of the latent for queries; 0: they come from the hidden state
    keys: int  # of the latent for keys and values
    plain: int
    rotary: int
    values: int
    eps: float | None = later(None)  # of the norms of latents; None: the model's


class Experts(Value):
    """Mixtures of experts as feed-forward layers (arXiv:2401.06066).

    Every layer after the first `dense` ones routes a token to `active` of `count` experts, and to
    the `shared` ones. With `groups` of experts, only the best `groups_used` groups are considered.
    A bias on the choice balances their load (arXiv:2408.15664).
    """

    count: int
    active: int
    ffn: int  # width of an expert
    shared: int
    dense: int
    groups: int | None
    groups_used: int | None
    score: Literal["softmax", "sigmoid"]
    normalized: bool  # the scores of a token's experts add up to 1
    scale: float  # and are then multiplied by this
    balance: float  # how far the bias moves per step; 0: no bias
    shared_gate: bool = later(False)  # the shared experts' output is multiplied by a sigmoid


class Parts(Value):
    """What the blocks of a decoder consist of; the defaults are Llama's."""

    published: str  # model_type in transformers that computes the same; "": none does
    norm: Literal["rms", "rms_plain", "layer", "layer_scale", "layer_plain"] = "rms"
    norms: Literal["before", "after", "both"] = "before"  # of attention and feed-forward layers
    # RMSNorm of a head's, or all heads' width; or a LayerNorm of heads with shared or own weights.
    qk_norm: Literal["none", "head", "width", "plain", "layer", "layers"] = "none"
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu"] = "silu"
    gated: bool = True  # three matrices, of which one gates; without, two
    biases: Literal["none", "qkv", "attention", "ffn", "but_qkv", "all"] = "none"
    parallel: Literal["none", "one", "two"] = "none"  # side by side, behind one or two norms
    rotary: float = 1.0  # share of a head's elements that rotate
    rotary_skips: int = 0  # every so manieth layer rotates nothing; 0: all rotate
    window_skips: int = 0  # every so manieth layer has no window; 0: all have it
    learned: int = later(0)  # positions with a learned embedding, and none that rotate; 0: none
    alibi: bool = later(False)  # scores fall with the distance (arXiv:2108.12409); none rotate
    attention_cap: float = later(0.0)  # scores are capped by tanh (arXiv:2408.00118 §2); 0: not
    logit_cap: float = later(0.0)  # the same of logits
    scaled: bool = later(False)  # embeddings are multiplied by the square root of the width
    embedding_norm: bool = later(False)  # a norm between embeddings and the first layer
    attention_scale: float = later(0.0)  # of scores; 0: one by the square root of a head's width
    embedding_scale: float = later(1.0)  # factor on embeddings
    residual_scale: float = later(1.0)  # factor on what a layer adds to the residual
    logit_scale: float = later(1.0)  # factor on logits
    window_theta: float = later(0.0)  # RoPE base of layers with a window; 0: that of the others
    qk_norm_late: bool = later(False)  # queries and keys are normed once they are rotated
    qkv_clip: float = later(0.0)  # queries, keys and values are kept within ± this; 0: not
    output_bias: bool = later(False)  # the output layer has a bias
    window_first: bool = later(False)  # of so many layers, the first has no window, not the last
    window_scaled: bool = later(False)  # `rope_scaling` scales layers with a window too
    gate: bool = later(False)  # what attention gathers is multiplied by a sigmoid of its input
    # Gated delta nets (arXiv:2412.06464) in place of attention; 0 heads: none.
    linear_heads: int = later(0)  # of values
    linear_key_heads: int = later(0)  # of queries and keys
    linear_key_dim: int = later(0)  # width of a head's queries and keys
    linear_value_dim: int = later(0)  # width of a head's values
    linear_convolution: int = later(0)  # tokens that the convolution before them sees
    linear_skips: int = later(0)  # every so manieth layer has attention all the same

    @property
    def biased(self) -> tuple[bool, bool, bool]:
        """Whether queries, keys and values, attention's output, and feed-forward layers have
        biases."""
        has = self.biases
        return (
            has in ("qkv", "attention", "all"),
            has in ("attention", "but_qkv", "all"),
            has in ("ffn", "but_qkv", "all"),
        )

    @property
    def norm_weights(self) -> int:
        """How many vectors a norm of the model's width has."""
        return {"rms": 1, "layer": 2, "layer_scale": 1}.get(self.norm, 0)

    def rotates(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has rotary positions."""
        return not (self.alibi or self.learned or _nth(self.rotary_skips, layer))

    def linear(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has a gated delta net in place of attention."""
        return self.linear_heads > 0 and not _nth(self.linear_skips, layer)

    def near(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has the model's window, if there is one."""
        return not _nth(self.window_skips, layer - 1 if self.window_first else layer)


def _nth(every: int, layer: int) -> bool:
    return every > 0 and (layer + 1) % every == 0


class ModelShape(Value):
    """A decoder's shape without the length of its sequences, which is set per job of a stage."""

    family: str
    size: str | None
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    rope_scaling: Literal["none", "llama", "yarn"]
    rope_factor: float  # by which rope_scaling extends positions; 1 without
    rope_original: int  # the length before; 0 without
    rope_low: float = 1.0  # "llama": with fewer rotations over that length, fully scaled
    rope_high: float = 4.0  # "llama": with more rotations, not scaled
    tied: bool
    norm_eps: float
    qk_norm: bool  # queries and keys are normed per head
    biased: bool  # attention, routers and experts add biases
    sinks: bool  # heads can attend to nothing: softmax with one more entry (arXiv:2309.17453)
    window: int  # tokens that a token sees in layers with a window, including itself; 0: no window
    latent: Latent | None
    experts: Experts | None
    parts: Parts | None = later(None)  # of families whose blocks a spec puts together
    mtp: int = later(0)  # further tokens that modules of their own predict (arXiv:2412.19437 §2.2)

    @property
    def main(self) -> Self:
        """The model without the modules that predict further tokens: what reads and writes."""
        return replace(self, mtp=0) if self.mtp else self

    def knowing(self, context: int, rope_theta: float | None = None) -> "Architecture":
        """The architecture for sequences of up to `context` tokens.

        Args:
            rope_theta: the RoPE base, if a stage has changed it.
        """
        own: dict[str, Any] = {name: getattr(self, name) for name in fields(ModelShape)}
        if rope_theta is not None:
            own["rope_theta"] = rope_theta
        return Architecture(**own, context=context)


class Architecture(ModelShape, before="rope_theta"):
    """A decoder's complete shape: nothing is left for the engine to choose."""

    context: int  # longest sequence that the model is built for, or that an export knows


class LrPiece(Value):
    """The learning rate from `from_step` to `to_step`.

    At step s it is `curves.value(shape, start, end, (c(s) − origin) / length)`, where c counts the
    stage's steps or tokens (`clock`) before the step; a hold is `start`.
    """

    from_step: int
    to_step: int
    shape: Shape
    start: float
    end: float
    clock: Literal["steps", "tokens"]
    origin: int
    length: int

    def rate(self, step: int, tokens_before: Callable[[int], int]) -> float:
        """The rate of a step: the curve's value at the beginning of the step."""
        if self.shape == "hold":
            return self.start
        position = step if self.clock == "steps" else tokens_before(step)
        share = (position - self.origin) / self.length
        return curves.value(self.shape, self.start, self.end, share)


class BatchPiece(Value):
    """Sequences in the global batch, from step to step."""

    from_step: int
    to_step: int
    sequences: int


class Resources(Value):
    """Ranks, their device and their mesh."""

    world_size: int
    device: str  # "cpu", or the name of a GPU
    replicate: int  # copies of the model: each has its own data, or its own answers to write
    shard: int
    tensor: int
    context: int
    pipeline: int
    interleave: int  # pipeline stages per rank, `pipeline` stages apart
    expert: int  # number of the shard × context × tensor ranks that experts are placed on
    per_node: int = 0  # ranks per node of the cluster; 0: all are on one
    schedule: str = later("1f1b")  # of the pipeline, as specs name it
    first_less: int = later(1)  # layers that the pipeline's first stage has less
    last_less: int = later(1)  # layers that its last stage has less

    @property
    def replica(self) -> int:
        """Ranks of each copy of a model that writes."""
        return self.world_size // self.replicate


class Saving(Value):
    """When checkpoints are written inside a job, and which are kept."""

    every: int | None  # steps of the job between two of them; None: timed by `seconds`
    seconds: float | None  # between two of them, by the clock of rank 0
    last: int | None = 2  # how many of the newest are kept; None: all
    marks: int | None = None  # every `marks` steps of the stage, one is written and kept


class Spikes(Value):
    """What happens to a step whose gradient norm is far above the usual one."""

    do: Literal["skip", "rollback", "stop"]
    above: float  # how many times the median of the steps before
    back: int = later(
        0
    )  # steps between checkpoints for a rollback, which goes back at least so far


class Profile(Value):
    """What torchtitan's profiler records of a job."""

    from_step: int  # of the stage
    to_step: int  # the step after the last one
    memory: bool = False  # also what the memory of a GPU holds, and where it was allocated
    ranks: Literal["first", "all"] = "first"  # which ranks record: rank 0, or all


class Generation(Value):
    """The GPUs on which a model generates, and its memory on each (see docs/cost.md)."""

    tensor: int  # GPUs of a node that split each layer
    pipeline: int  # nodes that divide the layers; on one GPU both are 1
    context: int  # tokens of the longest sequence of the job, prompt and answer
    memory: dict[str, int]  # bytes per GPU: "weights", "work", and "sequence", the cache of one
    least: int  # bytes per GPU that the job needs at least
    share: float  # of a GPU's memory that may be used
    gpu_memory: int  # bytes per GPU
    fits: bool
    at_a_time: int  # number of longest sequences that are generated together
    seconds: float | None  # estimated minimum; None: the amount of generation is unknown
    replicas: int = later(1)  # copies of the model, each on GPUs of its own, that share the answers


class Reading(Value):
    """The memory and time of a forward pass over data, without training (see docs/cost.md)."""

    memory: dict[str, int]  # bytes of the fullest GPU, by what they hold
    gpu_memory: int  # bytes per GPU
    fits: bool
    seconds: float | None  # estimated maximum; None: the amount of data is unknown

    @property
    def least(self) -> int:
        """Bytes per GPU that the job needs at least."""
        return sum(self.memory.values())


class Phase(Value):
    """A stretch of consecutive jobs that need the same machines.

    A *gang* consists of ranks that train or score together. *cpu* prepares data, *generate* samples
    and measures models, *small* copies, averages or exports them: one process each.
    """

    number: int  # from 1
    kind: Literal["cpu", "gang", "generate", "small"]
    nodes: int
    ranks: int  # processes per node
    device: str  # "cpu", or the name of a GPU
    devices: int  # GPUs needed per node; 0: none
    jobs: list[str]  # their ids
    conditional: bool  # all of it runs only if a gate fails
    seconds: float | None  # estimated, for the jobs that run in any case; None: unknown

    @property
    def world_size(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.ranks

    @property
    def name(self) -> str:
        """Its name in file names: `2-gang`."""
        return f"{self.number}-{self.kind}"


class Rounding(Value):
    """A boundary between two steps that was rounded: the request and the result."""

    what: str
    wished_tokens: str
    step: int
    tokens: int


class Claim(Value):
    """A published figure that the plan must match, unless its source contradicts itself."""

    what: str
    claimed: float
    computed: float
    tolerance: float
    cite: str | None
    because: str | None  # why the tolerance is so wide
    contradicted: str | None  # what in the source contradicts it: then it need not hold
    holds: bool

    @property
    def off(self) -> float:
        """The relative difference of the plan's figure from the claimed one."""
        return self.computed / self.claimed - 1 if self.claimed else self.computed


class Scaled(Value):
    """An attribute of a recipe and of its miniature, as specs write them."""

    block: str  # such as "model llama", "pretrain", "align.dpo"
    attribute: str  # "" for the block as a whole
    full: str
    miniature: str
