"""The recipe: the file bound to models. Names are not yet resolved, schedules not yet absolute.

Each attribute is declared once, with its kind, which reads it from the syntax tree and says what it
accepts. The model of a block says what it may hold, what is required, and the defaults.

The models are records, not pydantic models: importing pydantic alone takes longer than checking a
spec may take.
"""

from fractions import Fraction
from typing import Any, ClassVar

from ..findings.allows import Allowance
from ..quantity import Quantity
from ..record import MISSING, field
from ..source import Source, Span
from . import kinds as k
from . import number_kinds as nk
from .adapter import Adapter as Adapter
from .data_blocks import DATA as DATA
from .data_blocks import FIELDS as FIELDS
from .data_blocks import KINDS as KINDS
from .data_blocks import LONG as LONG
from .data_blocks import PROTOCOLS as PROTOCOLS
from .data_blocks import RECORDS as RECORDS
from .data_blocks import SAMPLES as SAMPLES
from .data_blocks import Dataset as Dataset
from .data_blocks import Dialog as Dialog
from .data_blocks import Fields as Fields
from .data_blocks import Filter as Filter
from .data_blocks import Fim as Fim
from .data_blocks import Tokenizer as Tokenizer
from .data_blocks import TokenizerTraining as TokenizerTraining
from .declaration import Attribute as Attribute
from .declaration import Cited as Cited
from .declaration import Declaration, attribute
from .declaration import attributes as attributes
from .declaration import kind_of as kind_of
from .declaration import statements as statements
from .distill_blocks import Distill as Distill
from .evaluation import DECIDES as DECIDES
from .evaluation import LOSS_TOKENS as LOSS_TOKENS
from .evaluation import Evaluation as Evaluation
from .measuring_blocks import ANSWERING as ANSWERING
from .measuring_blocks import MEASURES as MEASURES
from .measuring_blocks import Average as Average
from .measuring_blocks import Best as Best
from .measuring_blocks import Checkpoint as Checkpoint
from .measuring_blocks import Ensemble as Ensemble
from .measuring_blocks import Evaluate as Evaluate
from .measuring_blocks import Measuring as Measuring
from .measuring_blocks import Sample as Sample
from .measuring_blocks import Score as Score
from .model_blocks import ROPE_SCALING as ROPE_SCALING
from .model_blocks import Experts as Experts
from .model_blocks import Latent as Latent
from .model_blocks import Model as Model
from .model_blocks import RopeScaling as RopeScaling
from .optimizer import LACKING as LACKING
from .optimizer import OPTIMIZERS as OPTIMIZERS
from .optimizer import OWN as OWN
from .optimizer import Optimizer as Optimizer
from .parts_blocks import Parts as Parts
from .policy_blocks import DynamicSampling as DynamicSampling
from .policy_blocks import Grpo as Grpo
from .precision import PRECISION as PRECISION
from .precision import Precision as Precision
from .rating_blocks import Kto as Kto
from .solution_blocks import Prm as Prm
from .stage_groups import POLYAK as POLYAK
from .stage_groups import Gate as Gate
from .stage_groups import Needle as Needle
from .stage_groups import Polyak as Polyak
from .stage_groups import Profile as Profile
from .stage_groups import Requirement as Requirement
from .stage_groups import Spikes as Spikes
from .torchtitan_fields import TORCHTITAN
from .torchtitan_fields import CommFields as CommFields
from .torchtitan_fields import CompileFields as CompileFields
from .torchtitan_fields import DebugFields as DebugFields
from .torchtitan_fields import OptimizerFields as OptimizerFields
from .torchtitan_fields import ParallelismFields as ParallelismFields
from .torchtitan_fields import Torchtitan as Torchtitan
from .torchtitan_fields import TrainingFields as TrainingFields
from .tracking import TRACKING as TRACKING
from .tracking import Tracker as Tracker
from .training_blocks import DIALOG as DIALOG
from .training_blocks import WITH_WEIGHTS as WITH_WEIGHTS
from .training_blocks import DialogTraining as DialogTraining
from .training_blocks import Dpo as Dpo
from .training_blocks import PreferenceTraining as PreferenceTraining
from .training_blocks import Reward as Reward
from .training_blocks import Sft as Sft
from .training_blocks import Stage as Stage
from .training_blocks import Train as Train
from .training_blocks import Training as Training
from .verifier_blocks import VERIFIERS as VERIFIERS
from .verifier_blocks import Verifier as Verifier


class Header(Declaration):
    """The `recipe` block."""

    title: str | None = attribute(
        k.Text(), None, otherwise="the recipe's name", doc="shown by `etude plan`"
    )
    cite: str | None = attribute(k.Text(), None, doc="where the recipe was published")
    seed: int = attribute(
        nk.Whole(least=0, most=2**63 - 1),
        0,
        doc="seeds initial weights (each parameter by its name, so that they do not depend on how "
        "the model is placed), the order of documents, the held-out split and generated "
        "samples",
    )
    notes: str | None = attribute(k.Text(), None, doc="notes for readers; not in the plan")
    tracking: tuple[Tracker, ...] | None = attribute(
        TRACKING,
        None,
        doc="also log to [trackers](running.md#trackers): Weights & Biases, MLflow, Trackio, "
        "TensorBoard",
    )


class Cluster(Declaration):
    """Nodes and their devices."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("gpus", "cpus"),)

    nodes: int = attribute(nk.Whole(most=nk.MOST_DEVICES), 1, doc="number of machines")
    gpus: tuple[int, str] | None = attribute(
        nk.Devices(), None, doc="GPUs per machine, one rank each, and their name"
    )
    cpus: int | None = attribute(
        nk.Whole(most=nk.MOST_DEVICES), None, doc="CPU processes per machine, one rank each"
    )
    price: float | None = attribute(
        nk.Real(above=0),
        None,
        doc="price of a GPU-hour, in any currency; the plan then has [prices](cost.md)",
    )
    mtbf: float | None = attribute(
        nk.Duration("3 h"),
        None,
        doc="mean time between two failures of the whole cluster; the plan then has "
        "[expected hours](cost.md#failures)",
    )
    restart: float | None = attribute(
        nk.Duration("10 min", zero=True),
        None,
        otherwise="10 min",
        needs=("mtbf",),
        doc="from a failure until training continues",
    )
    save: float | None = attribute(
        nk.Duration("20 s", zero=True),
        None,
        needs=("mtbf",),
        doc="how long a checkpoint holds training up; the plan then proposes how often to save",
    )
    torchtitan: Torchtitan | None = attribute(
        TORCHTITAN, None, doc="see [`torchtitan`](#torchtitan): of all stages that run here"
    )


STAGES: dict[str, type[Stage]] = {
    kind.kind: kind
    for kind in (
        *(Train, Sft, Distill, Reward, Dpo, Kto, Prm, Grpo),
        *(Score, Sample, Checkpoint, Average, Best, Ensemble, Evaluate),
    )
}


def data_kind(kind: str) -> str:
    """What stages of a kind train on; "" if they do not train."""
    model = STAGES.get(kind)
    return model.data_kind if model and issubclass(model, Training) else ""


def rows(kind: str) -> str:
    """What batches of a kind of stage usually count, in the plural."""
    model = STAGES.get(kind)
    return model.rows if model and issubclass(model, Training) else Training.rows


INHERITED: dict[str, Any] = {
    name: of.inherits
    for kind in STAGES.values()
    for name, of in attributes(kind).items()
    if of.inherits is not MISSING
}
"""Attributes that a stage inherits from the one before, and their values if there is none."""


BLOCKS: dict[str, type[Declaration]] = {
    "recipe": Header,
    "model": Model,
    "tokenizer": Tokenizer,
    "dataset": Dataset,
    "cluster": Cluster,
    "dialog": Dialog,
    "verifier": Verifier,
}
"""The models of blocks, by keyword; those of stages are in `STAGES`."""


def block_model(keyword: str, kind: str | None) -> type[Declaration] | None:
    """The model of a block; `kind` is that of a stage. None if there is no such block."""
    return STAGES.get(kind or "") if keyword == "stage" else BLOCKS.get(keyword)


class Rounds(Declaration):
    """Stages repeated `count` times."""

    count: int
    stages: dict[str, Stage]


class Expectation(Declaration):
    """`what at place = value within tolerance because "why" cite "source"`.

    Attributes:
        moment: the point in a stage, in steps, tokens or a share of it; None: the whole stage.
        because: why the tolerance is as wide as it is.
        contradicted: what in the source itself contradicts the claim; it need not hold then.
    """

    value: Fraction
    tolerance: Fraction
    cite: str | None
    moment: Quantity | None = None
    because: str | None = None
    contradicted: str | None = None


class Recipe(Declaration):
    """Everything that a spec declares.

    Attributes:
        main: the main file; others were brought in by `use`.
        lets: where the name of a `let` was replaced → its name, and where it is given.
        variants: name → block.
        variant: the one that was applied; "" for none.
        sets: the changes on the command line, as written there.
        left_out: the keywords of blocks that errors removed; checks that need the whole spec are
            then skipped.
    """

    header: Header
    models: dict[str, Model]
    tokenizers: dict[str, Tokenizer]
    datasets: dict[str, Dataset]
    clusters: dict[str, Cluster]
    dialogs: dict[str, Dialog] = field(default_factory=dict)
    verifiers: dict[str, Verifier] = field(default_factory=dict)
    stages: dict[str, Stage | Rounds]
    expectations: list[Expectation]
    main: Source | None = field(default=None, compare=False)
    lets: dict[Span, tuple[str, Span]] = field(default_factory=dict, compare=False)
    variants: dict[str, Span] = field(default_factory=dict, compare=False)
    variant: str = field(default="", compare=False)
    sets: list[str] = field(default_factory=list, compare=False)
    allowances: list[Allowance] = field(default_factory=list)
    left_out: frozenset[str] = field(default=frozenset(), compare=False)
