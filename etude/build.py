"""Recipes from Python: pydantic models of everything that a spec declares.

from etude.build import Dataset, Model, Recipe, Tokenizer, Train

recipe = Recipe(
    name="small",
    models={"tiny": Model(layers=2, dim=64, heads=4, ffn=128)},
    …
)
print(recipe.text())

The models are the JSON form of specs (docs/json.md): `model_dump_json` writes what every command
reads, and `model_validate_json` reads what `etude fmt --to json` writes. Attributes have the names
of the language; `from` is `from_`, and `fields` is `fields_`. A value is a number, a flag, a list,
a group, or a string with what a spec would say, such as `lr="0 -> 3e-4 for 2000 steps then -> 0"`.
Attributes that are texts in a spec, such as titles and files, are plain strings. Only names and
kinds are checked here; what is wrong with values is found where every spec is checked.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AliasChoices, ConfigDict, Field

from .attributes import (
    FIELDS,
    FROM,
    Attributes,
    Block,
    Flag,
    Let,
    Name,
    Names,
    Number,
    Numbers,
    Reasons,
    Schedule,
    Sources,
    Text,
    Texts,
    Value,
    Written,
)

if TYPE_CHECKING:
    from .loaded import Spec


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
    balance: Number | None = None


class Latent(Block):
    """Attention through latents: widths."""

    queries: Number | None = None
    keys: Number | None = None
    plain: Number | None = None
    rotary: Number | None = None
    values: Number | None = None


class RopeScaling(Attributes):
    """Positions that are stretched by `factor` over an `original` length."""

    kind: Literal["yarn", "llama"] = "yarn"
    factor: Number | None = None
    original: Number | None = None
    low: Number | None = None
    high: Number | None = None


class Model(Block):
    """An architecture: a published size, or a shape of one's own."""

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
    weights: Text = None
    hub: Text = None
    revision: Text = None
    context: Number | None = None


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
    """Which field of a record holds what."""

    text: Text = None
    messages: Text = None
    prompt: Text = None
    completion: Text = None
    chosen: Text = None
    rejected: Text = None
    edited: Text = None
    tools: Text = None
    system: Text = None
    role: Text = None
    content: Text = None
    ignore: Texts = None


class Dialog(Block):
    """A chat protocol."""

    protocol: Literal["llama3", "chatml"] | Let | None = None
    template: Text = None
    header: Text = None
    end_of_turn: Text = None
    end_of_message: Text = None
    roles: Names | None = None
    system: Text = None


class Dataset(Block):
    """Where documents, dialogs, preferences or prompts come from.

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
    documents: Number | None = None
    skip: Number | None = None
    fields_: Fields | Let | None = FIELDS
    tokens: Number | None = None
    holdout: Number | None = None
    bad_lines: Number | None = None
    long: Literal["refuse", "drop", "truncate"] | Let | None = None
    kind: Literal["documents", "dialogs", "preferences", "prompts"] | Let | None = None
    pairs: Number | None = None
    awaited: Flag = False
    candidates: Name | None = None
    filters: list[str] = []


class Cluster(Block):
    """Nodes and their devices; `gpus` as in `8 of "H100 80GB"`."""

    nodes: Number | None = None
    gpus: str | None = None
    cpus: Number | None = None
    price: Number | None = None


class Optimizer(Attributes):
    """The optimizer's settings."""

    kind: Literal["adamw", "adam"] = "adamw"
    betas: Numbers | None = None
    weight_decay: Number | None = None
    eps: Number | None = None


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


class Stage(Block):
    """What every kind of stage is: a block with a `kind`."""


class Training(Stage):
    """What all kinds of training have."""

    from_: Name | None = FROM
    tokens: Number | None = None
    steps: Number | None = None
    epochs: Number | None = None
    seq_len: Schedule | None = None
    batch: Schedule | None = None
    lr: Schedule | None = None
    data: Schedule | None = None
    parallel: Schedule | None = None
    optimizer: Optimizer | Literal["adamw", "adam", "last"] | Let | None = None
    clip: Number | None = None
    precision: Literal["bf16", "fp32"] | Let | None = None
    recompute: Literal["none", "selective", "full"] | Let | None = None
    cluster: Name | None = None
    average: str | None = None
    checkpoint: Number | None = None


class Train(Training):
    """Next-token training on documents."""

    kind: Literal["train"] = "train"
    model: Name | None = None
    rope_theta: Schedule | None = None
    rope_scaling: Literal["none", "llama"] | RopeScaling | Let | None = None
    tokenizer: Name | None = None
    gate: Gate | None = None


class Sft(Training):
    """Supervised fine-tuning on dialogs."""

    kind: Literal["sft"] = "sft"
    dialog: Name | None = None
    loss: Literal["assistant", "all"] | Let | None = None


class Preferences(Training):
    """What training on preferences has; responses more alike than `similar` are left out."""

    dialog: Name | None = None
    layout: Literal["joint", "pairs"] | Let | None = None
    similar: Number | None = None


class Reward(Preferences):
    """A reward model from preferences."""

    kind: Literal["reward"] = "reward"


class Dpo(Preferences):
    """Direct preference optimization."""

    kind: Literal["dpo"] = "dpo"
    reference: Name | None = None
    beta: Number | None = None
    nll: Number | None = None
    label_smoothing: Number | None = None
    normalize: bool | Let | None = None
    mask: Literal["none", "formatting"] | Let | None = None


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: Literal["score"] = "score"
    from_: Name | None = FROM
    data: Names
    seq_len: Number | None = None


class Sample(Stage):
    """Rejection sampling."""

    kind: Literal["sample"] = "sample"
    from_: Name | None = FROM
    prompts: Name
    draws: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    max_tokens: Number
    judge: Name | None = None
    keep: Number | None = None
    dialog: Name | None = None


class Average(Stage):
    """The mean of the weights of other stages."""

    kind: Literal["average"] = "average"
    of: Names
    weights: Numbers | None = None


class Checkpoint(Stage):
    """The weights of a stage on its way."""

    kind: Literal["checkpoint"] = "checkpoint"
    from_: Name | None = FROM
    after: Number


class Measuring(Stage):
    """What can be measured of a model."""

    loss: Names | None = None
    seq_len: Number | None = None
    needle: Needle | Let | None = None
    accuracy: Names | None = None
    judge: Name | None = None
    prompts: Name | None = None
    limit: Number | None = None
    max_tokens: Number | None = None
    temperature: Number | None = None
    dialog: Name | None = None
    suites: dict[str, str | Let | list[str | Let]] | Let | None = None
    tasks: Text = None


class Evaluate(Measuring):
    """Measures of a stage's result."""

    kind: Literal["evaluate"] = "evaluate"
    from_: Name | None = FROM


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: Literal["best"] = "best"
    of: Names


AnyStage: TypeAlias = Annotated[
    Train | Sft | Reward | Dpo | Score | Sample | Checkpoint | Average | Evaluate | Best,
    Field(discriminator="kind"),
]


class Rounds(Written):
    """Stages repeated `count` times."""

    kind: Literal["rounds"] = "rounds"
    count: Number
    stages: dict[str, AnyStage]
    allow: Reasons = {}


class Claim(Written):
    """A published figure: `value` within a tolerance, with why that is wide, or what refutes it.

    Its name may have a moment: `pretrain.lr at 2000 steps`.
    """

    value: Number
    within: Number | None = None
    because: Text = None
    contradicted: Text = None
    cite: Text = None


class Expect(Written):
    """Claims by the names of figures, several of one in a list, and what is silenced of them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Claim | list[Claim]]

    allow: Reasons = {}


class Variant(Written):
    """A named change to the recipe.

    Attributes:
        set: values by the paths of what they change: `pretrain.lr`.
    """

    set: dict[str, Value] = {}
    sources: Sources = {}
    allow: Reasons = {}


class Use(Written):
    """A file whose stages come after one of this file."""

    file: str
    after: Name | None = None


class Recipe(Block):
    """Everything that a spec declares, by name and in order."""

    schema_: str | None = Field(
        default=None,
        validation_alias=AliasChoices("$schema", "schema_"),
        serialization_alias="$schema",
    )
    etude_spec: Literal[1] = 1
    name: str
    title: Text = None
    cite: Text = None
    seed: Number | None = None
    notes: Text = None
    tracking: Literal["wandb"] | Let | None = None
    use: list[str | Use] = []
    let: dict[str, Value] = {}
    models: dict[str, Model] = {}
    tokenizers: dict[str, Tokenizer] = {}
    datasets: dict[str, Dataset] = {}
    dialogs: dict[str, Dialog] = {}
    clusters: dict[str, Cluster] = {}
    stages: dict[str, Annotated[AnyStage | Rounds, Field(discriminator="kind")]] = {}
    expect: dict[str, Claim | list[Claim]] | Expect | list[Expect] = {}
    variants: dict[str, Variant] = {}

    def json_text(self) -> str:
        """The spec in its JSON form, laid out: where the places of diagnostics lie."""
        from .spec.json.json_text import laid_out, read
        from .spec.source import Source

        node = read(Source("<text>", self.model_dump_json()), _report())
        assert node
        return laid_out(node)

    def text(self) -> str:
        """The spec as a text.

        Raises: etude.SpecError: a string cannot be read; its place is in `json_text()`.
        """
        from .spec.convert_form import to_text
        from .spec.source import Source

        report = _report()
        made = to_text(Source("<text>", self.json_text()), report)
        report.stop_on_errors()
        assert made is not None
        return made

    def bound(self) -> "Spec":
        """The spec, bound to its recipe.

        Raises: etude.SpecError: with all that is wrong; its places are in `json_text()`.
        """
        from .loaded import loaded
        from .spec.load import reads

        return loaded(reads(self.json_text()))


def _report() -> Any:
    from .spec.findings.diagnostics import Report

    return Report()
