"""The program: the graph of stages while the passes make it absolute, one field after the other."""

from fractions import Fraction
from typing import Any, ClassVar

from ..spec.quantity import Quantity
from ..spec.record import Record, field
from ..spec.schema import recipe as r
from .values import Architecture, BatchPiece, Claim, LrPiece, Resources, Rounding


class Hardware(Record, kw_only=False):
    """Where a stage runs.

    Attributes:
        device: "cpu", or a GPU's name.
        per_node: ranks of a machine.
        price: of a GPU-hour, where one is given.
    """

    world_size: int
    device: str
    per_node: int = 1
    price: float | None = None


class MixturePart(Record, kw_only=False):
    """Integer weights from one step to another (steps of the stage, half open)."""

    from_step: int
    to_step: int
    weights: dict[str, int]


class State(Record):
    """What is in force where a stage ends: what `last` means to the stages that follow."""

    lr: Fraction | float
    batch: Quantity
    seq_len: int
    data: dict[str, Fraction]
    rope_theta: float
    parallel: dict[str, int]


class Segment(Record):
    """A stretch with constant shapes: one train job."""

    from_step: int
    to_step: int
    seq_len: int
    rope_theta: float
    resources: Resources
    micro_batch: int


class TrainStage(Record):
    """A train stage; fields are filled by the passes in this order."""

    name: str
    spec: r.Training
    parent: str | None
    model: Architecture
    tokenizer: str | None
    hardware: Hardware
    optimizer: r.Optimizer
    carries: bool
    settings: dict[str, Any]
    """What is in force of the attributes that stages inherit, and that no pass has to know."""
    precision: str
    recompute: str
    origins: dict[str, str]
    dialog: dict[str, Any] | None = None
    meshes: dict[tuple[tuple[str, int], ...], Resources] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    lengths: list[tuple[int, int, int]] = field(default_factory=list)
    batches: list[BatchPiece] = field(default_factory=list)
    lr: list[LrPiece] = field(default_factory=list)
    mixture: list[MixturePart] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    roundings: list[Rounding] = field(default_factory=list)
    begins: dict[str, list[int]] = field(default_factory=dict)
    """Knob → the step where each segment of its schedule, as written, begins."""
    end: State | None = None
    checkpoints: dict[str, tuple[int, State]] = field(default_factory=dict)
    """Checkpoint stage → the step that it is before, and what is in force there."""

    @property
    def published(self) -> bool:
        """Whether these are published weights, with which nothing is in force."""
        return isinstance(self.spec, Weights)

    def sequences_before(self, step: int) -> int:
        """Sequences that the stage has consumed before `step`."""
        return sum(
            (min(piece.to_step, step) - piece.from_step) * piece.sequences
            for piece in self.batches
            if piece.from_step < step
        )

    def tokens_before(self, step: int) -> int:
        """Tokens that the stage has consumed before `step`."""
        total = 0
        for start, stop, seq_len in self.lengths:
            if start < step:
                stop = min(stop, step)
                total += (self.sequences_before(stop) - self.sequences_before(start)) * seq_len
        return total


class Weights(r.Training):
    """What stands in the graph for a model with published weights: a result that nothing made."""

    kind: ClassVar[str] = "weights"


class WeightsStage(Record):
    """Published weights.

    Attributes:
        source: `folder`, or `hub` with `revision`, as the plan holds them.
        result: the weights as the result of a stage that has taken no step.
        of: nothing, which they are made of.
    """

    name: str
    spec: Weights
    model: Architecture
    source: dict[str, str]
    result: TrainStage
    of: list[str] = field(default_factory=list)


class AverageStage(Record):
    """An average stage."""

    name: str
    spec: r.Average
    of: list[str]
    weights: list[Fraction]
    model: Architecture


class CheckpointStage(Record):
    """A checkpoint stage; `part` is the stage that it is of, up to it, once that is scheduled."""

    name: str
    spec: r.Checkpoint
    of: str
    model: Architecture
    part: TrainStage | None = None


class BestStage(Record):
    """A best stage."""

    name: str
    spec: r.Best
    of: list[str]
    dialog: dict[str, Any] | None
    model: Architecture


class EvaluateStage(Record):
    """An evaluate stage."""

    name: str
    spec: r.Evaluate
    of: str
    dialog: dict[str, Any] | None
    model: Architecture


class SampleStage(Record):
    """A sample stage; `keep` is the number of draws of a prompt, 0 all."""

    name: str
    spec: r.Sample
    of: str
    dialog: dict[str, Any]
    keep: int
    model: Architecture


class ScoreStage(Record):
    """A score stage."""

    name: str
    spec: r.Score
    of: str
    model: Architecture


AnyStage = (
    TrainStage
    | WeightsStage
    | CheckpointStage
    | AverageStage
    | BestStage
    | EvaluateStage
    | SampleStage
    | ScoreStage
)


class Program(Record, kw_only=False):
    """The recipe with names resolved, in an order in which its stages can run."""

    recipe: r.Recipe
    ranks: int | None
    stages: dict[str, AnyStage] = field(default_factory=dict)
    jobs: list[Any] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def trained(self, name: str) -> TrainStage:
        """The stage that trained the weights: itself, or the first that it is made of.

        Of a checkpoint it is the part of the stage before it, of published weights one of no steps.
        """
        stage = self.stages[name]
        while not isinstance(stage, TrainStage):
            if isinstance(stage, WeightsStage):
                return stage.result
            if isinstance(stage, CheckpointStage) and stage.part:
                return stage.part
            stage = self.stages[stage.of if isinstance(stage.of, str) else stage.of[0]]
        return stage
