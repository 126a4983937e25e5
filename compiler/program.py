"""The program: the graph of stages, which the passes resolve field by field."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..spec.quantity import Quantity
from ..spec.record import Record, field, fields
from ..spec.schema import recipe as r
from ..spec.schema.kept import Kept
from .values import BatchPiece, Claim, LrPiece, ModelShape, Resources, Rounding


class Hardware(Record, kw_only=False):
    """The hardware of a stage.

    Attributes:
        device: "cpu", or a GPU's name.
        per_node: ranks per node.
        price: per GPU-hour, if given.
        mtbf, restart, save: seconds between two failures, from a failure until training continues,
            and for which a checkpoint pauses training, as far as they are given.
        torchtitan: the cluster's settings for torchtitan, by torchtitan's names.
    """

    world_size: int
    device: str
    per_node: int = 1
    price: float | None = None
    mtbf: float | None = None
    restart: float | None = None
    save: float | None = None
    torchtitan: r.Torchtitan | None = None


class MixturePart(Record, kw_only=False):
    """Integer weights from one step to another (steps of the stage, half open)."""

    from_step: int
    to_step: int
    weights: dict[str, int]


class State(Record):
    """The values in force at the end of a stage: what `last` means to the following stages."""

    lr: Fraction | float
    batch: Quantity
    seq_len: int
    data: dict[str, Fraction]
    rope_theta: float
    parallel: dict[str, int]
    settings: dict[str, float | None]


class Form(Record):
    """The form of a job's steps: lengths, mesh, and sequences that a rank processes at a time."""

    seq_len: int
    rope_theta: float
    resources: Resources
    micro_batch: int


class Segment(Form):
    """A stretch with constant shapes: one train job."""

    from_step: int
    to_step: int

    @property
    def steps(self) -> int:
        return self.to_step - self.from_step


class Stage(Record):
    """A stage with its names resolved; each kind has its own record.

    Attributes:
        model: the architecture of the weights that it makes or takes.
    """

    name: str
    spec: Any
    model: ModelShape

    @property
    def sources(self) -> Sequence[str]:
        """The stages whose results it takes."""
        raise NotImplementedError

    @property
    def shown_dialog(self) -> dict[str, Any] | None:
        """The protocol whose tokens its model has to tell apart, if it has one."""
        return None

    @property
    def begins_with(self) -> str | None:
        """The declared model with whose weights, random or published, it begins, if any."""
        return None


class StageOfOne(Stage):
    """A stage that takes the result of another stage."""

    of: str

    @property
    def sources(self) -> Sequence[str]:
        return [self.of]


class StageOfMany(Stage):
    """A stage that makes one model from several."""

    of: list[str]

    @property
    def sources(self) -> Sequence[str]:
        return self.of


class ModelStage(Stage):
    """A stage with weights of its own, and with what jobs on them need.

    Attributes:
        settings: the values in force of attributes that stages inherit and no pass has to know.
        dialog: the settings of the chat protocol, if it uses one.
    """

    tokenizer: str | None
    hardware: Hardware
    optimizer: r.Optimizer
    settings: dict[str, Any]
    precision: r.Precision
    recompute: str
    dialog: dict[str, Any] | None = None

    @property
    def shown_dialog(self) -> dict[str, Any] | None:
        return self.dialog


class TrainStage(ModelStage):
    """A stage that trains.

    Attributes:
        parent: the stage that it continues from; None: it starts from random weights.
        carries: whether it takes over the parent's optimizer state.
        origins: setting → its origin: "spec", "etude", "model" or "from STAGE".
    """

    spec: r.Training
    parent: str | None
    carries: bool
    origins: dict[str, str]

    @property
    def sources(self) -> Sequence[str]:
        return [self.parent] if self.parent else []

    @property
    def begins_with(self) -> str | None:
        return self.spec.model


Unit = Literal["tokens", "rows", "dialogs", "pairs", "ratings", "solutions"]


class SourceCount(Record):
    """How much of a source a stage has whose length is in epochs.

    Attributes:
        identity: a digest of what decides it.
        unit: "tokens" of documents, "rows" of packed dialogs, or what a batch counts: "dialogs",
            "pairs" of preferences, "ratings", or "solutions".
        numbers: of each epoch, if epochs differ; else one.
        exact: whether it was counted.
        said: what it was estimated from, for people.
    """

    dataset: str
    identity: str
    unit: Unit
    numbers: tuple[int, ...]
    exact: bool
    said: str


class ScheduledStage(TrainStage):
    """A training stage with every knob by step.

    Attributes:
        lengths: from which step to which, and the sequence length there.
        changing: the settings that the trainer sets before each step, where they change or are
            not the model's.
        begins: knob → the step at which each segment of its schedule, as written, begins.
        end: the values in force at its end.
        checkpoints: checkpoint stage → the step that follows it, and the values in force there.
        counts: of each source whose size is not declared, for a length in epochs.
    """

    steps: int
    tokens: int
    lengths: list[tuple[int, int, int]]
    batches: list[BatchPiece]
    lr: list[LrPiece]
    changing: dict[str, list[LrPiece]]
    mixture: list[MixturePart]
    segments: list[Segment]
    roundings: list[Rounding]
    begins: dict[str, list[int]]
    end: State
    checkpoints: dict[str, tuple[int, State]]
    counts: dict[str, SourceCount]

    @classmethod
    def of(cls, stage: TrainStage, **schedules: Any) -> "ScheduledStage":
        """A stage with its schedules."""
        return cls(**{name: getattr(stage, name) for name in fields(TrainStage)}, **schedules)

    @property
    def last(self) -> Form:
        """The form of its last steps."""
        return self.segments[-1]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that it trains on."""
        return max(length for _, _, length in self.lengths)

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


class Weights(r.Stage):
    """The node in the graph for a model with published weights: a result that no stage makes."""

    kind: ClassVar[str] = "weights"
    continued: ClassVar[bool] = False
    model: r.Model

    @property
    def writes_text(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.model.judges


class WeightsStage(ModelStage):
    """Published weights with which stages start. They have no settings in force.

    Attributes:
        source: `folder`, or `hub` with `revision`, as in the plan.
        also: what is shown of the folder besides the model: name → value.
        last: the form in which a job that does not train takes them.
    """

    spec: Weights
    source: dict[str, str]
    also: dict[str, str]
    last: Form

    @property
    def sources(self) -> Sequence[str]:
        return []

    @property
    def begins_with(self) -> str | None:
        return self.name

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that they were trained on."""
        return self.last.seq_len


class CheckpointStage(StageOfOne):
    """The weights at a point in a stage."""

    spec: r.Checkpoint


class ScheduledCheckpoint(CheckpointStage):
    """A checkpoint at a known step of a stage; `part` is the stage up to that step."""

    whole: ScheduledStage
    part: ScheduledStage


Trained = ScheduledStage | WeightsStage
"""The stages from which all weights originally come."""


class FromFolder(Record):
    """What a model with published weights has from the folder of the weights.

    Attributes:
        folder: as the spec writes it.
        filled: attributes of the model that the spec leaves to the folder.
        tokenizer: the name of the tokenizer, if the folder's is used.
        dialog: the settings of the folder's chat protocol, if it is used and there is one.
        shown: name → value and file, of what else the folder says, for people.
        files: path, as seen from the spec → SHA-256, of every file that was read.
    """

    folder: str
    filled: tuple[str, ...]
    tokenizer: str | None
    dialog: dict[str, Any] | None
    shown: dict[str, tuple[str, str]]
    files: dict[str, str]


class Program(Record, kw_only=False):
    """The recipe between passes. Each kind of program knows more than the last.

    Attributes:
        folders: model → what it has from the folder of its weights.
        folder: that of the spec, if there is one.
        counted: the counts beside the spec, see `files/counts_file.py`.
    """

    recipe: r.Recipe
    ranks: int | None
    kept: Kept = field(default_factory=Kept, compare=False)
    folders: dict[str, FromFolder] = field(default_factory=dict)
    folder: Path | None = None
    counted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Resolved(Program):
    """Names are resolved, and stages are in an order in which they can run."""

    stages: dict[str, Stage]

    def trained(self, name: str) -> ModelStage:
        """The stage that trained the weights: itself, or the first stage that it is made from.

        For a checkpoint it is the part of the stage before it, once that is scheduled.
        """
        stage = self.stages[name]
        while not isinstance(stage, ModelStage):
            if isinstance(stage, ScheduledCheckpoint):
                return stage.part
            stage = self.stages[stage.sources[0]]
        return stage


class Scheduled(Resolved):
    """All schedules are absolute."""

    def trained(self, name: str) -> Trained:
        """The same, with its schedules; published weights have none."""
        stage = self.stages[name]
        while not isinstance(stage, Trained):
            if isinstance(stage, ScheduledCheckpoint):
                return stage.part
            stage = self.stages[stage.sources[0]]
        return stage


class Claimed(Scheduled):
    """The recipe's claims have been compared with the computed figures."""

    claims: list[Claim]


class Lowered(Scheduled):
    """The jobs, in an order in which they can run, and the results of the recipe."""

    jobs: list[Any]
    outputs: dict[str, str]
