"""The recipe: the file bound to models. Names are not yet resolved, schedules not yet absolute.

Each attribute is declared once, with its kind, which reads it from the syntax tree and says what it
takes; what a block may hold, what is required and what it defaults to can be read off its model.

The models are records and do not derive from pydantic's BaseModel, because importing that alone
takes longer than checking a spec may.
"""

from fractions import Fraction
from typing import ClassVar, Literal

from ..findings.allows import Allowance
from ..quantity import Quantity
from ..record import field, fields
from ..schedule import Schedule
from ..source import Source, Span
from . import convert_schedule as cs
from . import group_kinds as g
from . import kinds as k
from .declaration import Attribute as Attribute
from .declaration import Cited as Cited
from .declaration import Declaration, attribute, statement
from .declaration import attributes as attributes
from .declaration import kind_of as kind_of
from .declaration import statements as statements

DATA = ("dataset", "stage")
"""What may name data: a stage that samples stands for what it draws."""
WITH_WEIGHTS = ("stage", "model")
PROTOCOLS = ("llama3", "chatml")
"""Dialogs that are built in."""
DIALOG = k.Name("dialog", known=PROTOCOLS)


class Header(Declaration):
    """The `recipe` block."""

    title: str | None = attribute(k.Text(), None)
    cite: str | None = attribute(k.Text(), None)
    seed: int = attribute(k.Whole(least=0, most=2**63 - 1), 0)
    notes: str | None = attribute(k.Text(), None)
    tracking: str | None = attribute(k.OneOf("wandb", foreign="tracking"), None)


class Experts(Declaration):
    """Feed-forward layers that are mixtures of experts."""

    count: int | None = attribute(k.Whole(most=k.MOST), None)
    active: int | None = attribute(k.Whole(most=k.MOST), None)
    shared: int | None = attribute(k.Whole(least=0, most=k.MOST), None)
    ffn: int | None = attribute(k.Whole(most=k.MOST), None)
    dense: int | None = attribute(k.Whole(least=0, most=k.MOST), None)
    groups: int | None = attribute(k.Whole(most=k.MOST), None)
    groups_used: int | None = attribute(k.Whole(most=k.MOST), None)
    scale: float | None = attribute(k.Real(above=0), None)
    balance: float | None = attribute(k.Real(least=0), None)


class Latent(Declaration):
    """Attention through latents: widths."""

    queries: int | None = attribute(k.Whole(least=0, most=k.MOST), None)
    keys: int | None = attribute(k.Whole(most=k.MOST), None)
    plain: int | None = attribute(k.Whole(most=k.MOST), None)
    rotary: int | None = attribute(k.Whole(most=k.MOST), None)
    values: int | None = attribute(k.Whole(most=k.MOST), None)


class RopeScaling(Declaration):
    """How rotary positions are stretched: by `factor` over an `original` length.

    `llama` leaves alone what turns more than `high` times over the original length, and stretches
    by the whole factor what turns less than `low` times.
    """

    kind: str
    factor: float | None = attribute(k.Real(above=1), None)
    original: int | None = attribute(k.Whole("tokens"), None)
    low: float | None = attribute(k.Real(above=0), None)
    high: float | None = attribute(k.Real(above=0), None)


ROPE_SCALING = g.Tagged(
    tags=("yarn", "llama"),
    names=("none", "llama"),
    holds=RopeScaling,
    typical="factor = 8, original = 8Ki",
    what="a way of stretching positions",
    help="write `none`, `llama`, `llama { factor = 32 }`, or `yarn { factor = 8, original = 8Ki }`",
)


class Model(Declaration):
    """An architecture, of a published size or a shape of one's own; and weights that it has."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("weights", "hub"),)

    family: str = attribute(k.Name(), "llama3")
    size: str | None = attribute(k.Text(), None)
    layers: int | None = attribute(k.Whole(most=k.MOST), None)
    dim: int | None = attribute(k.Whole(most=k.MOST), None)
    heads: int | None = attribute(k.Whole(most=k.MOST), None)
    kv_heads: int | None = attribute(k.Whole(most=k.MOST), None)
    head_dim: int | None = attribute(k.Whole(most=k.MOST), None)
    ffn: int | None = attribute(k.Whole(most=k.MOST), None)
    vocab: int | None = attribute(k.Whole(most=k.MOST), None)
    rope_theta: float | None = attribute(k.Real(above=0), None)
    rope_scaling: RopeScaling | None = attribute(ROPE_SCALING, None)
    tied: bool | None = attribute(k.Flag(), None)
    norm_eps: float | None = attribute(k.Real(above=0), None)
    window: int | None = attribute(k.Whole("tokens", least=0), None)
    latent: Latent | None = attribute(
        g.Group(Latent, "keys = 512, plain = 128, rotary = 64, values = 128"), None
    )
    experts: Experts | None = attribute(
        g.Group(Experts, "count = 64, active = 6, ffn = 1408"), None
    )
    weights: str | None = attribute(k.Text(), None)
    hub: str | None = attribute(k.Text(), None)
    revision: str | None = attribute(k.Text(), None, needs=("hub",))
    context: int | None = attribute(k.Whole("tokens", least=2), None, needs=("weights", "hub"))


class TokenizerTraining(Declaration):
    """A tokenizer to be trained."""

    entries: ClassVar[bool] = True

    on: list[str] = attribute(k.Name("dataset", many=True))
    vocab: int = attribute(k.Whole(most=k.MOST))


class Tokenizer(Declaration):
    """Where a tokenizer comes from."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("file", "hub", "bytes", "train"),)

    file: str | None = attribute(k.Text(), None)
    hub: str | None = attribute(k.Text(), None)
    bytes: bool = attribute(g.Mark("bytes"), False)
    train: TokenizerTraining | None = attribute(
        g.Group(TokenizerTraining, "on [docs], vocab 4096"), None
    )


class Fields(Declaration):
    """Which field of a record, and of its messages, holds what, and which is ignored."""

    text: str = attribute(k.Text(), "text")
    messages: str = attribute(k.Text(), "messages")
    prompt: str = attribute(k.Text(), "prompt")
    completion: str = attribute(k.Text(), "completion")
    chosen: str = attribute(k.Text(), "chosen")
    rejected: str = attribute(k.Text(), "rejected")
    edited: str = attribute(k.Text(), "edited")
    tools: str = attribute(k.Text(), "tools")
    system: str = attribute(k.Text(), "system")
    role: str | None = attribute(k.Text(), None)
    content: str = attribute(k.Text(), "content")
    ignore: list[str] | None = attribute(k.Text(many=True), None)


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

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("protocol", "template", "header"),)

    protocol: str | None = attribute(k.OneOf(*PROTOCOLS, foreign="protocol"), None)
    template: str | None = attribute(k.Text(), None)
    header: str | None = attribute(k.Text(), None)
    end_of_turn: str | None = attribute(k.Text(), None, needs=("header",))
    end_of_message: str | None = attribute(k.Text(), None, needs=("header",))
    roles: list[str] | None = attribute(k.Name(many=True), None, needs=("header",))
    system: str | None = attribute(k.Text(), None)


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

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("files", "hub", "sample"),)

    files: list[str] | None = attribute(k.Text(many=True), None)
    hub: str | None = attribute(k.Text(), None)
    config: str | None = attribute(k.Text(), None)
    split: str = attribute(k.Text(), "train")
    sample: str | None = attribute(k.OneOf(*SAMPLES), None)
    documents: int | None = attribute(k.Whole("docs"), None)
    skip: int = attribute(k.Whole("docs", least=0), 0)
    fields: Fields = attribute(g.Group(Fields, 'text = "body"'), Fields())
    tokens: int | None = attribute(k.Whole("tokens"), None)
    holdout: Fraction = attribute(k.Share(), Fraction(1, 200))
    bad_lines: int = attribute(k.Whole(least=0), 0)
    long: str = attribute(k.OneOf(*LONG, foreign="long"), "refuse")
    kind: str = attribute(k.OneOf(*KINDS, foreign="records"), "documents")
    pairs: int | None = attribute(k.Whole("pairs"), None)
    awaited: bool = attribute(g.Mark("awaited"), False)
    candidates: str | None = attribute(k.Ref("stage"), None)
    filters: list[Filter] = statement(g.Filters(), list)
    deal: tuple[int, int, int] | None = None
    stages: list[str] = field(default_factory=list)
    output: str = ""


class Cluster(Declaration):
    """Nodes and their devices."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("gpus", "cpus"),)

    nodes: int = attribute(k.Whole(most=k.MOST_DEVICES), 1)
    gpus: tuple[int, str] | None = attribute(k.Devices(), None)
    cpus: int | None = attribute(k.Whole(most=k.MOST_DEVICES), None)
    price: float | None = attribute(k.Real(above=0), None)


class Optimizer(Declaration):
    """The optimizer's settings."""

    kind: str = "adamw"
    betas: tuple[float, ...] = attribute(k.Betas(), (0.9, 0.95))
    weight_decay: float = attribute(k.Real(least=0), 0.1)
    eps: float = attribute(k.Real(above=0), 1e-8)


OPTIMIZERS = g.Optimizers(
    tags=("adamw", "adam"),
    names=("adamw", "adam", "last"),
    holds=Optimizer,
    typical="betas = [0.9, 0.95], weight_decay = 0.1",
    what="an optimizer",
    help="write `adamw { betas = [0.9, 0.95], weight_decay = 0.1 }` or `last`",
    foreign="optimizer",
)


class Polyak(Declaration):
    """Averaging of weights over steps, of the whole stage or its last part."""

    every: int = attribute(k.Whole("steps"))
    over: Quantity | None = attribute(k.LENGTH, None)


POLYAK = g.Periodic(
    holds=Polyak,
    word="polyak",
    what="a way of averaging",
    help="write `polyak every 1 step`, or `polyak every 10 steps over 50%`",
    foreign="average",
)


class Needle(Declaration):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: list[int] | None = attribute(k.Wholes("tokens"), None)
    depths: int = attribute(k.Whole(most=k.MOST), 5)
    samples: int = attribute(k.Whole(most=k.MOST), 4)


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
    needle: Needle = attribute(g.Group(Needle, "depths = 5, samples = 4"), Needle())


class Stage(Declaration):
    """What every kind of stage has; `variant` is the one that it was taken from."""

    kind: ClassVar[str]
    variant: str = ""


class Training(Stage):
    """What all kinds of training have; `data_kind` is what they train on."""

    ways: ClassVar[tuple[tuple[str, ...], ...]] = (("tokens", "steps", "epochs"),)

    data_kind: ClassVar[str] = "documents"

    model: str | None = None
    rope_theta: Schedule | None = None
    rope_scaling: RopeScaling | None = None
    tokenizer: str | None = None
    gate: Gate | None = None
    from_: str | None = attribute(k.Ref(*WITH_WEIGHTS), None, name="from")
    tokens: int | None = attribute(k.Whole("tokens"), None)
    steps: int | None = attribute(k.Whole("steps"), None)
    epochs: Quantity | None = attribute(k.Amount("epochs"), None)
    seq_len: Schedule | None = attribute(cs.ScheduleOf(cs.SeqLen()), None)
    batch: Schedule | None = attribute(cs.ScheduleOf(cs.Batch()), None)
    lr: Schedule | None = attribute(cs.ScheduleOf(cs.Rate()), None)
    data: Schedule | None = attribute(cs.ScheduleOf(cs.Mixture()), None)
    parallel: Schedule | None = attribute(cs.ScheduleOf(cs.Placement()), None)
    optimizer: Optimizer | str | None = attribute(OPTIMIZERS, None)
    clip: float | None = attribute(k.Real(above=0), None)
    precision: str | None = attribute(k.OneOf("bf16", "fp32", foreign="precision"), None)
    recompute: str | None = attribute(
        k.OneOf("none", "selective", "full", foreign="recompute"), None
    )
    cluster: str | None = attribute(k.Name("cluster"), None)
    average: Polyak | None = attribute(POLYAK, None)
    checkpoint: int | None = attribute(k.Every(), None)


class Train(Training):
    """Next-token training on documents."""

    kind: ClassVar[str] = "train"
    ways: ClassVar[tuple[tuple[str, ...], ...]] = (*Training.ways, ("model", "from"))
    data_kind: ClassVar[str] = "documents"
    model: str | None = attribute(k.Name("model"), None)
    rope_theta: Schedule | None = attribute(cs.ScheduleOf(cs.Theta()), None)
    rope_scaling: RopeScaling | None = attribute(ROPE_SCALING, None)
    tokenizer: str | None = attribute(k.Name("tokenizer"), None)
    gate: Gate | None = attribute(g.Block("gate seq_len { require needle >= 90% }", Gate), None)


class Sft(Training):
    """Supervised fine-tuning on dialogs."""

    kind: ClassVar[str] = "sft"
    data_kind: ClassVar[str] = "dialogs"
    dialog: str | None = attribute(DIALOG, None)
    loss: str = attribute(k.OneOf("assistant", "all", foreign="loss"), "assistant")


class PreferenceTraining(Training):
    """Training on preferences; responses more alike than `similar` are left out."""

    data_kind: ClassVar[str] = "preferences"
    batch: Schedule | None = attribute(cs.ScheduleOf(cs.Pairs()), None)
    dialog: str | None = attribute(DIALOG, None)
    layout: str = attribute(k.OneOf("joint", "pairs"), "joint")
    similar: Fraction | None = statement(g.Alike(), None)


class Reward(PreferenceTraining):
    """A reward model from preferences."""

    kind: ClassVar[str] = "reward"


class Dpo(PreferenceTraining):
    """Direct preference optimization."""

    kind: ClassVar[str] = "dpo"
    reference: str | None = attribute(k.Ref(*WITH_WEIGHTS), None)
    beta: float = attribute(k.Real(above=0), 0.1)
    nll: float = attribute(k.Real(least=0), 0.0)
    label_smoothing: float = attribute(k.Real(least=0, below=0.5), 0.0)
    normalize: bool = attribute(k.Flag(), False)
    mask: str = attribute(k.OneOf("none", "formatting"), "none")


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: ClassVar[str] = "score"
    from_: str | None = attribute(k.Ref(*WITH_WEIGHTS), None, name="from")
    data: list[str] = attribute(k.Ref(*DATA, many=True))
    seq_len: int | None = attribute(k.Whole("tokens", least=2), None)


class Sample(Stage):
    """Rejection sampling: draws for every prompt, the best by a judge kept."""

    kind: ClassVar[str] = "sample"
    from_: str | None = attribute(k.Ref(*WITH_WEIGHTS), None, name="from")
    prompts: str = attribute(k.Ref(*DATA))
    draws: int = attribute(k.Whole(most=k.MOST), 1)
    temperature: float = attribute(k.Real(least=0), 1.0)
    top_p: float = attribute(k.Real(above=0, most=1), 1.0)
    max_tokens: int = attribute(k.Whole("tokens"))
    judge: str | None = attribute(k.Ref("stage"), None)
    keep: int | None = attribute(k.Kept(), None)
    dialog: str | None = attribute(DIALOG, None)


class Average(Stage):
    """The mean of the weights of other stages."""

    kind: ClassVar[str] = "average"
    of: list[str] = attribute(k.Ref(*WITH_WEIGHTS, many=True))
    weights: tuple[float, ...] | None = attribute(k.Reals(), None)


class Checkpoint(Stage):
    """The weights of a stage on its way, `after` so many tokens, steps or percent of it."""

    kind: ClassVar[str] = "checkpoint"
    from_: str | None = attribute(k.Ref(*WITH_WEIGHTS), None, name="from")
    after: Quantity = attribute(k.LENGTH)


MEASURES = ("loss", "needle", "accuracy", "judge", "suites")


class Measuring(Stage):
    """What can be measured of a model: loss, needle, accuracy, reward and suites of tasks."""

    loss: list[str] | None = attribute(k.Ref(*DATA, many=True), None)
    seq_len: int | None = attribute(k.Whole("tokens"), None, needs=("loss",))
    needle: Needle | None = attribute(g.Group(Needle, "depths = 5, samples = 4"), None)
    accuracy: list[str] | None = attribute(k.Ref(*DATA, many=True), None)
    judge: str | None = attribute(k.Ref("stage"), None)
    prompts: str | None = attribute(k.Ref(*DATA), None, needs=("judge",))
    limit: int | None = attribute(k.Whole(most=k.MOST), None, needs=("judge", "suites"))
    max_tokens: int | None = attribute(k.Whole("tokens"), None, needs=("judge",))
    temperature: float = attribute(k.Real(least=0), 1.0, needs=("judge",))
    dialog: str | None = attribute(DIALOG, None, needs=("judge",))
    suites: dict[str, list[str]] | None = attribute(k.Suites(), None)
    tasks: str | None = attribute(k.Text(), None, needs=("suites",))


class Evaluate(Measuring):
    """Measures of a stage's result."""

    kind: ClassVar[str] = "evaluate"
    from_: str | None = attribute(k.Ref(*WITH_WEIGHTS), None, name="from")


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: ClassVar[str] = "best"
    ways: ClassVar[tuple[tuple[str, ...], ...]] = (MEASURES,)
    of: list[str] = attribute(k.Ref(*WITH_WEIGHTS, many=True))


STAGES: dict[str, type[Stage]] = {
    kind.kind: kind
    for kind in (Train, Sft, Reward, Dpo, Score, Sample, Checkpoint, Average, Best, Evaluate)
}


BLOCKS: dict[str, type[Declaration]] = {
    "recipe": Header,
    "model": Model,
    "tokenizer": Tokenizer,
    "dataset": Dataset,
    "cluster": Cluster,
    "dialog": Dialog,
}
"""The models of blocks, by keyword; those of stages are `STAGES`."""


def block_model(keyword: str, kind: str | None) -> type[Declaration] | None:
    """What a block may hold; `kind` is that of a stage. None where there is no such block."""
    return STAGES.get(kind or "") if keyword == "stage" else BLOCKS.get(keyword)


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
    allowances: list[Allowance] = field(default_factory=list)
    left_out: frozenset[str] = field(default=frozenset(), compare=False)
