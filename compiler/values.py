"""Values that the passes make and that the plan holds as they are.

Plain data classes, because checking a spec builds no plan and has no time for its models.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from .curves import Shape


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder's shape, complete: nothing is left for the engine to choose."""

    family: str
    size: str | None
    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int  # longest sequence that the stage's model is built for
    rope_theta: float
    rope_scaling: Literal["none", "llama"]
    tied: bool
    norm_eps: float

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class LrPiece:
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

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class BatchPiece:
    """Sequences in the global batch, from step to step."""

    from_step: int
    to_step: int
    sequences: int

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Ranks, their device and their mesh."""

    world_size: int
    device: str  # "cpu", or the name of a GPU
    replicate: int
    shard: int
    tensor: int
    context: int
    pipeline: int

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """A boundary that fell between two steps: what was asked for, and what it became."""

    what: str
    wished_tokens: str
    step: int
    tokens: int

    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published figure that the plan must meet."""

    what: str
    claimed: float
    computed: float
    tolerance: float
    cite: str | None
    holds: bool

    __pydantic_config__: ClassVar = {"extra": "forbid"}
