"""The recipe: the file bound to models. Names are not yet resolved, schedules not yet absolute.

Each attribute is declared once, with the function that reads it from the syntax tree; what a block
may hold, what is required and what it defaults to can be read off its model.

The models are records and do not derive from pydantic's BaseModel, because importing that alone
takes longer than checking a spec may.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, ClassVar, Literal

from . import convert as c
from . import convert_schedule as cs
from .allows import Allowance
from .declaration import MOST, Declaration, attribute, whole
from .declaration import Attribute as Attribute
from .declaration import Cited as Cited
from .declaration import attributes as attributes
from .quantity import Quantity
from .record import field, fields
from .schedule import Schedule
from .source import Source, Span


class Header(Declaration):
    """The `recipe` block."""

    title: str | None = attribute(c.text, None)
    cite: str | None = attribute(c.text, None)
    seed: int = attribute(whole(least=0, most=2**63 - 1), 0)
    notes: str | None = attribute(c.text, None)
    tracking: str | None = attribute(c.one_of("wandb", of="tracking"), None)


class Experts(Declaration):
    """Feed-forward layers that are mixtures of experts."""

    count: int | None = attribute(whole(most=MOST), None)
    active: int | None = attribute(whole(most=MOST), None)
    shared: int | None = attribute(whole(least=0, most=MOST), None)
    ffn: int | None = attribute(whole(most=MOST), None)
    dense: int | None = attribute(whole(least=0, most=MOST), None)
    groups: int | None = attribute(whole(most=MOST), None)
    groups_used: int | None = attribute(whole(most=MOST), None)
    scale: float | None = attribute(c.real(above=0), None)
    balance: float | None = attribute(c.real(least=0), None)


class Latent(Declaration):
    """Attention through latents: widths."""

    queries: int | None = attribute(whole(least=0, most=MOST), None)
    keys: int | None = attribute(whole(most=MOST), None)
    plain: int | None = attribute(whole(most=MOST), None)
    rotary: int | None = attribute(whole(most=MOST), None)
    values: int | None = attribute(whole(most=MOST), None)


class RopeScaling(Declaration):
    """How rotary positions are stretched: by `factor` over an `original` length.

    `llama` leaves alone what turns more than `high` times over the original length, and stretches
    by the whole factor what turns less than `low` times.
    """

    kind: str
    factor: float | None = attribute(c.real(above=1), None)
    original: int | None = attribute(whole("tokens"), None)
    low: float | None = attribute(c.real(above=0), None)
    high: float | None = attribute(c.real(above=0), None)


class Model(Declaration):
    """An architecture, of a published size or a shape of one's own; and weights that it has."""

    family: str = attribute(c.name, "llama3")
    size: str | None = attribute(c.text, None)
    layers: int | None = attribute(whole(most=MOST), None)
    dim: int | None = attribute(whole(most=MOST), None)
    heads: int | None = attribute(whole(most=MOST), None)
    kv_heads: int | None = attribute(whole(most=MOST), None)
    head_dim: int | None = attribute(whole(most=MOST), None)
    ffn: int | None = attribute(whole(most=MOST), None)
    vocab: int | None = attribute(whole(most=MOST), None)
    rope_theta: float | None = attribute(c.real(above=0), None)
    rope_scaling: RopeScaling | None = attribute(None, None)
    tied: bool | None = attribute(c.flag, None)
    norm_eps: float | None = attribute(c.real(above=0), None)
    window: int | None = attribute(whole("tokens", least=0), None)
    latent: Latent | None = attribute(None, None)
    experts: Experts | None = attribute(None, None)
    weights: str | None = attribute(c.text, None)
    hub: str | None = attribute(c.text, None)
    revision: str | None = attribute(c.text, None)
    context: int | None = attribute(whole("tokens", least=2), None)


class TokenizerTraining(Declaration):
    """A tokenizer to be trained."""

    on: list[str] = attribute(c.names)
    vocab: int = attribute(whole(most=MOST))


class Tokenizer(Declaration):
    """Where a tokenizer comes from."""

    file: str | None = attribute(c.text, None)
    hub: str | None = attribute(c.text, None)
    bytes: bool = attribute(None, False)
    train: TokenizerTraining | None = attribute(None, None)


class Fields(Declaration):
    """Which field of a record, and of its messages, holds what, and which is ignored."""

    text: str = attribute(c.text, "text")
    messages: str = attribute(c.text, "messages")
    prompt: str = attribute(c.text, "prompt")
    completion: str = attribute(c.text, "completion")
    chosen: str = attribute(c.text, "chosen")
    rejected: str = attribute(c.text, "rejected")
    edited: str = attribute(c.text, "edited")
    tools: str = attribute(c.text, "tools")
    system: str = attribute(c.text, "system")
    role: str | None = attribute(c.text, None)
    content: str = attribute(c.text, "content")
    ignore: list[str] | None = attribute(c.texts, None)


FIELDS = tuple(name for name in fields(Fields) if fields(Fields)[name].metadata)


class Filter(Declaration):
    """`keep 10% where quality.loss > 4.0`, or `drop where url in "sites.txt"`.

    Of the documents that meet the condition the share `keep` is kept, and all others. With a list
    of sites (`file`) the documents on it are dropped (0), or all that are not on it (1).
    """

    keep: Fraction
    what: str
    op: str
    value: Fraction = Fraction(0)
    file: str | None = None


class Dialog(Declaration):
    """A chat protocol: a built-in one, a Jinja template, or one's own."""

    protocol: str | None = attribute(c.one_of("llama3", "chatml", of="protocol"), None)
    template: str | None = attribute(c.text, None)
    header: str | None = attribute(c.text, None)
    end_of_turn: str | None = attribute(c.text, None)
    end_of_message: str | None = attribute(c.text, None)
    roles: list[str] | None = attribute(c.names, None)
    system: str | None = attribute(c.text, None)


SAMPLES = ("python_docs", "python_code", "python_functions", "arithmetic", "needles")
KINDS = ("documents", "dialogs", "preferences", "prompts")
LONG = ("refuse", "drop", "truncate")
"""What becomes of records of more tokens than their stage's rows have."""


class Dataset(Declaration):
    """Where documents, dialogs, preferences or prompts come from.

    Attributes:
        deal: (hands, first, last): of records dealt out to so many hands, those of some.
        stages: whose `output` this is, in place of files.
    """

    files: list[str] | None = attribute(c.texts, None)
    hub: str | None = attribute(c.text, None)
    config: str | None = attribute(c.text, None)
    split: str = attribute(c.text, "train")
    sample: str | None = attribute(c.one_of(*SAMPLES), None)
    documents: int | None = attribute(whole("docs"), None)
    skip: int = attribute(whole("docs", least=0), 0)
    fields: Fields = attribute(None, Fields())
    tokens: int | None = attribute(whole("tokens"), None)
    holdout: Fraction = attribute(c.share, Fraction(1, 200))
    bad_lines: int = attribute(whole(least=0), 0)
    long: str = attribute(c.one_of(*LONG, of="long"), "refuse")
    kind: str = attribute(c.one_of(*KINDS, of="records"), "documents")
    pairs: int | None = attribute(whole("pairs"), None)
    awaited: bool = attribute(None, False)
    candidates: str | None = attribute(c.reference, None)
    filters: list[Filter] = field(default_factory=list)
    deal: tuple[int, int, int] | None = None
    stages: list[str] = field(default_factory=list)
    output: str = ""


class Cluster(Declaration):
    """Nodes and their devices."""

    nodes: int = attribute(whole(most=c.MOST_DEVICES), 1)
    gpus: tuple[int, str] | None = attribute(c.devices, None)
    cpus: int | None = attribute(whole(most=c.MOST_DEVICES), None)
    price: float | None = attribute(c.real(above=0), None)


class Optimizer(Declaration):
    """The optimizer's settings."""

    kind: str = "adamw"
    betas: tuple[float, ...] = attribute(c.betas, (0.9, 0.95))
    weight_decay: float = attribute(c.real(least=0), 0.1)
    eps: float = attribute(c.real(above=0), 1e-8)


class Polyak(Declaration):
    """Averaging of weights over steps, of the whole stage or its last part."""

    every: int = attribute(whole("steps"))
    over: Quantity | None = attribute(c.length("tokens", "steps", "%"), None)


class Needle(Declaration):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: list[int] | None = attribute(c.counts, None)
    depths: int = attribute(whole(most=MOST), 5)
    samples: int = attribute(whole(most=MOST), 4)


class Requirement(Declaration):
    """A condition of a gate."""

    measure: str
    argument: str | None
    op: Literal[">=", "<=", ">", "<"]
    value: Fraction
    of_start: bool


class Gate(Declaration):
    """What has to hold before a sequence length may be increased."""

    requirements: list[Requirement]
    extend: Quantity | None = None
    attempts: int = 0
    needle: Needle = Needle()


class Stage(Declaration):
    """What every kind of stage has; `variant` is the one that it was taken from."""

    kind: ClassVar[str]
    variant: str = ""


class Training(Stage):
    """What all kinds of training have; `data_kind` is what they train on."""

    data_kind: ClassVar[str] = "documents"

    model: str | None = None
    rope_theta: Schedule | None = None
    rope_scaling: RopeScaling | None = None
    tokenizer: str | None = None
    gate: Gate | None = None
    from_: str | None = attribute(c.reference, None, "from")
    tokens: int | None = attribute(whole("tokens"), None)
    steps: int | None = attribute(whole("steps"), None)
    epochs: Quantity | None = attribute(c.epochs, None)
    seq_len: Schedule | None = attribute(cs.schedule(cs.length_operand), None)
    batch: Schedule | None = attribute(cs.schedule(cs.batch_operand), None)
    lr: Schedule | None = attribute(cs.schedule(cs.rate_operand), None)
    data: Schedule | None = attribute(cs.schedule(cs.mixture_operand), None)
    parallel: Schedule | None = attribute(cs.schedule(cs.placement_operand), None)
    optimizer: Optimizer | str | None = attribute(None, None)
    clip: float | None = attribute(c.real(above=0), None)
    precision: str | None = attribute(c.one_of("bf16", "fp32", of="precision"), None)
    recompute: str | None = attribute(c.one_of("none", "selective", "full", of="recompute"), None)
    cluster: str | None = attribute(c.name, None)
    average: Polyak | None = attribute(None, None)
    checkpoint: int | None = attribute(whole("steps"), None)


class Train(Training):
    """Next-token training on documents."""

    kind: ClassVar[str] = "train"
    data_kind: ClassVar[str] = "documents"
    model: str | None = attribute(c.name, None)
    rope_theta: Schedule | None = attribute(cs.schedule(cs.theta_operand), None)
    rope_scaling: RopeScaling | None = attribute(None, None)
    tokenizer: str | None = attribute(c.name, None)
    gate: Gate | None = attribute(None, None)


class Sft(Training):
    """Supervised fine-tuning on dialogs."""

    kind: ClassVar[str] = "sft"
    data_kind: ClassVar[str] = "dialogs"
    dialog: str | None = attribute(c.name, None)
    loss: str = attribute(c.one_of("assistant", "all", of="loss"), "assistant")


class PreferenceTraining(Training):
    """Training on preferences; responses more alike than `similar` are left out."""

    data_kind: ClassVar[str] = "preferences"
    batch: Schedule | None = attribute(cs.schedule(cs.pairs_operand), None)
    dialog: str | None = attribute(c.name, None)
    layout: str = attribute(c.one_of("joint", "pairs"), "joint")
    similar: Fraction | None = None


class Reward(PreferenceTraining):
    """A reward model from preferences."""

    kind: ClassVar[str] = "reward"


class Dpo(PreferenceTraining):
    """Direct preference optimization."""

    kind: ClassVar[str] = "dpo"
    reference: str | None = attribute(c.reference, None)
    beta: float = attribute(c.real(above=0), 0.1)
    nll: float = attribute(c.real(least=0), 0.0)
    label_smoothing: float = attribute(c.real(least=0, below=0.5), 0.0)
    normalize: bool = attribute(c.flag, False)
    mask: str = attribute(c.one_of("none", "formatting"), "none")


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: ClassVar[str] = "score"
    from_: str | None = attribute(c.reference, None, "from")
    data: list[str] = attribute(c.references)
    seq_len: int | None = attribute(whole("tokens", least=2), None)


class Sample(Stage):
    """Rejection sampling: draws for every prompt, the best by a judge kept."""

    kind: ClassVar[str] = "sample"
    from_: str | None = attribute(c.reference, None, "from")
    prompts: str = attribute(c.reference)
    draws: int = attribute(whole(most=MOST), 1)
    temperature: float = attribute(c.real(least=0), 1.0)
    top_p: float = attribute(c.real(above=0, most=1), 1.0)
    max_tokens: int = attribute(whole("tokens"))
    judge: str | None = attribute(c.reference, None)
    keep: int | None = attribute(c.kept, None)
    dialog: str | None = attribute(c.name, None)


class Average(Stage):
    """The mean of the weights of other stages."""

    kind: ClassVar[str] = "average"
    of: list[str] = attribute(c.references)
    weights: tuple[float, ...] | None = attribute(c.reals, None)


class Checkpoint(Stage):
    """The weights of a stage on its way, `after` so many tokens, steps or percent of it."""

    kind: ClassVar[str] = "checkpoint"
    from_: str | None = attribute(c.reference, None, "from")
    after: Quantity = attribute(c.length("tokens", "steps", "%"))


class Measuring(Stage):
    """What can be measured of a model: loss, needle, accuracy, reward and suites of tasks."""

    loss: list[str] | None = attribute(c.references, None)
    seq_len: int | None = attribute(whole("tokens"), None)
    needle: Needle | None = attribute(None, None)
    accuracy: list[str] | None = attribute(c.references, None)
    judge: str | None = attribute(c.reference, None)
    prompts: str | None = attribute(c.reference, None)
    limit: int | None = attribute(whole(most=MOST), None)
    max_tokens: int | None = attribute(whole("tokens"), None)
    temperature: float = attribute(c.real(least=0), 1.0)
    dialog: str | None = attribute(c.name, None)
    suites: dict[str, list[str]] | None = attribute(c.suites, None)
    tasks: str | None = attribute(c.text, None)


class Evaluate(Measuring):
    """Measures of a stage's result."""

    kind: ClassVar[str] = "evaluate"
    from_: str | None = attribute(c.reference, None, "from")


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: ClassVar[str] = "best"
    of: list[str] = attribute(c.references)


STAGES: dict[str, type[Stage]] = {
    kind.kind: kind
    for kind in (Train, Sft, Reward, Dpo, Score, Sample, Checkpoint, Average, Best, Evaluate)
}


class Rounds(Declaration):
    """Stages repeated `count` times."""

    count: int
    stages: dict[str, Stage]


class Expectation(Declaration):
    """`what at place = value within tolerance because "why" cite "source"`.

    Attributes:
        moment: where in a stage: steps, tokens or a share of it; None: about the whole.
        because: why the tolerance is as wide as it is.
        contradicted: by what of the source itself; such a claim need not hold.
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
        variants: the variants that there are → their blocks.
        variant: the one that was applied; "" for none.
        sets: what was changed on the command line, as written there.
        statements: those that it was bound from, before any change.
        left_out: the keywords of blocks that are missing here because of errors; what has to know
            the whole spec is not judged then.
    """

    header: Header
    models: dict[str, Model]
    tokenizers: dict[str, Tokenizer]
    datasets: dict[str, Dataset]
    clusters: dict[str, Cluster]
    dialogs: dict[str, Dialog] = field(default_factory=dict)
    stages: dict[str, Stage | Rounds]
    expectations: list[Expectation]
    main: Source | None = field(default=None, compare=False)
    lets: dict[Span, tuple[str, Span]] = field(default_factory=dict, compare=False)
    variants: dict[str, Span] = field(default_factory=dict, compare=False)
    variant: str = field(default="", compare=False)
    sets: list[str] = field(default_factory=list, compare=False)
    statements: Sequence[Any] = field(default=(), compare=False)
    allowances: list[Allowance] = field(default_factory=list)
    left_out: frozenset[str] = field(default=frozenset(), compare=False)
