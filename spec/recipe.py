"""The recipe: the file bound to models. Names are not yet resolved, schedules not yet absolute.

Each attribute is declared once, with the converter that reads it from the syntax tree; what a
block may hold, what is required and what it defaults to can be read off its model.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from . import convert as c
from . import syntax as s
from .quantity import Quantity
from .schedule import Schedule
from .source import Span


def read(converter: Callable[[Any], Any]) -> BeforeValidator:
    """Reads a node of the syntax tree with `converter`; plain values pass through."""

    def validate(value: Any) -> Any:
        if not isinstance(value, s.Value):
            return value
        try:
            return converter(value)
        except c.Invalid as problem:
            raise PydanticCustomError("invalid", "{message}", vars(problem)) from None

    return BeforeValidator(validate)


Name = Annotated[str, read(c.name)]
Names = Annotated[list[str], read(c.names)]
Text = Annotated[str, read(c.text)]
Count = Annotated[int, read(c.count())]
Ordinal = Annotated[int, read(c.count(least=0))]
Tokens = Annotated[int, read(c.count("tokens"))]
Positive = Annotated[float, read(c.real(above=0))]
Share = Annotated[Fraction, read(c.share)]
Rates = Annotated[Schedule, read(c.schedule(c.rate_operand))]
Lengths = Annotated[Schedule, read(c.schedule(c.length_operand))]
Batches = Annotated[Schedule, read(c.schedule(c.batch_operand))]
Mixtures = Annotated[Schedule, read(c.schedule(c.mixture_operand))]
Placements = Annotated[Schedule, read(c.schedule(c.placement_operand))]


class Declaration(BaseModel):
    """A named block. `places` maps attributes to where they were written, "" to the head."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True
    )

    name: str = ""
    places: dict[str, Span] = Field(default_factory=dict, exclude=True, repr=False)

    def at(self, attribute: str = "") -> Span | None:
        """Where an attribute was written, or else the block's head."""
        return self.places.get(attribute) or self.places.get("")


class Header(Declaration):
    title: Text | None = None
    cite: Text | None = None
    seed: Ordinal = 0
    notes: Text | None = None
    tracking: Annotated[str, read(c.one_of("wandb"))] | None = None


class Model(Declaration):
    family: Name = "llama3"
    size: Text | None = None
    layers: Count | None = None
    dim: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    ffn: Count | None = None
    vocab: Count | None = None
    rope_theta: Positive | None = None
    rope_scaling: Annotated[str, read(c.one_of("none", "llama"))] | None = None
    tied: Annotated[bool, read(c.flag)] | None = None
    norm_eps: Positive | None = None


class TokenizerTraining(Declaration):
    on: Names
    vocab: Count


class Tokenizer(Declaration):
    file: Text | None = None
    hub: Text | None = None
    bytes: bool = False
    train: TokenizerTraining | None = None


class Fields(Declaration):
    text: Text = "text"


class Dataset(Declaration):
    files: Annotated[list[str], read(c.texts)] | None = None
    hub: Text | None = None
    config: Text | None = None
    split: Text = "train"
    sample: (
        Annotated[str, read(c.one_of("python_docs", "python_code", "arithmetic", "needles"))] | None
    ) = None
    documents: Annotated[int, read(c.count("docs"))] | None = None
    fields: Fields = Fields()
    tokens: Annotated[int, read(c.count("tokens"))] | None = None
    holdout: Share = Fraction(1, 200)
    bad_lines: Ordinal = 0


class Cluster(Declaration):
    nodes: Count = 1
    gpus: Annotated[tuple[int, str], read(c.devices)] | None = None
    cpus: Count | None = None


class Optimizer(Declaration):
    kind: Literal["adamw", "adam"] = "adamw"
    betas: Annotated[list[float], read(c.reals)] = [0.9, 0.95]
    weight_decay: Annotated[float, read(c.real(least=0))] = 0.1
    eps: Positive = 1e-8


class Polyak(Declaration):
    every: Annotated[Quantity, read(c.length("steps"))]
    over: Annotated[Quantity, read(c.length("tokens", "steps", "%"))] | None = None


class Needle(Declaration):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: Annotated[list[int], read(c.counts)] | None = None
    depths: Count = 5
    samples: Count = 4


class Requirement(Declaration):
    measure: str
    argument: str | None
    op: Literal[">=", "<=", ">", "<"]
    value: Fraction
    of_start: bool


class Gate(Declaration):
    requirements: list[Requirement]
    extend: Quantity | None = None
    attempts: int = 0
    needle: Needle = Needle()


class Stage(Declaration):
    """What every kind of stage has."""

    kind: ClassVar[str]


class Train(Stage):
    kind: ClassVar[str] = "train"
    model: Name | None = None
    from_: Name | None = Field(default=None, alias="from")
    tokens: Tokens | None = None
    steps: Annotated[int, read(c.count("steps"))] | None = None
    epochs: Annotated[Quantity, read(lambda v: c.quantity(v, ["epochs"], "epochs"))] | None = None
    seq_len: Lengths | None = None
    batch: Batches | None = None
    lr: Rates | None = None
    data: Mixtures | None = None
    rope_theta: Rates | None = None
    parallel: Placements | None = None
    optimizer: Optimizer | Literal["last"] | None = None
    clip: Positive | None = None
    precision: Annotated[str, read(c.one_of("bf16", "fp32"))] | None = None
    recompute: Annotated[str, read(c.one_of("none", "selective", "full"))] | None = None
    cluster: Name | None = None
    tokenizer: Name | None = None
    average: Polyak | None = None
    checkpoint: Annotated[Quantity, read(c.length("steps"))] | None = None
    gate: Gate | None = None


class Average(Stage):
    kind: ClassVar[str] = "average"
    of: Names
    weights: Annotated[list[float], read(c.reals)] | None = None


class Evaluate(Stage):
    kind: ClassVar[str] = "evaluate"
    from_: Name | None = Field(default=None, alias="from")
    loss: Names | None = None
    seq_len: Tokens | None = None
    needle: Needle | None = None


STAGES: dict[str, type[Stage]] = {kind.kind: kind for kind in (Train, Average, Evaluate)}


class Expectation(Declaration):
    """`what = value within tolerance cite "source"`."""

    value: Fraction
    tolerance: Fraction
    cite: str | None


class Recipe(Declaration):
    header: Header
    models: dict[str, Model]
    tokenizers: dict[str, Tokenizer]
    datasets: dict[str, Dataset]
    clusters: dict[str, Cluster]
    stages: dict[str, Stage]
    expectations: list[Expectation]
