"""Recipes from Python: pydantic models of everything that a spec declares.

from etude.build import Dataset, Model, Recipe, Tokenizer, Train

recipe = Recipe(
    name="small",
    models={"tiny": Model(layers=2, dim=64, heads=4, ffn=128)},
    …
)
print(recipe.text())

Attributes have the names of the language; `from` is `from_`, and `fields` is `fields_`. A value is
a number, a flag, a list, a group, or a string with what a spec would say, such as
`lr="0 -> 3e-4 for 2000 steps then -> 0"`. Attributes that are texts in a spec, such as titles and
files, are plain strings. Only names and kinds are checked here; what is wrong with values is found
where every spec is checked, and pointed to in the text.
"""

import json
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from .authoring import writing as w

if TYPE_CHECKING:
    from .spec.recipe import Recipe as Bound

Text: TypeAlias = Annotated[str | None, "text"]
"""A text in a spec: written in quotes."""
Texts: TypeAlias = Annotated[str | list[str] | None, "text"]
Flag: TypeAlias = Annotated[bool, "word"]
"""On where its name stands alone."""
Number: TypeAlias = int | float | str
"""A number, or what a spec would say: `15T`, `8000 steps`, `50%`."""
Name: TypeAlias = str
"""The name of a declaration, or a reference such as `previous.chat or pretrain`."""
Group: TypeAlias = dict[str, Number]
"""Names with numbers: `{"web": "90%", "math": "10%"}`, `{"tensor": 8}`."""
Schedule: TypeAlias = Number | Group
"""A value, or a schedule as a spec says it."""


_FROM = Field(
    default=None, validation_alias=AliasChoices("from", "from_"), serialization_alias="from"
)
_FIELDS = Field(
    default=None, validation_alias=AliasChoices("fields", "fields_"), serialization_alias="fields"
)


_FIRST = ("model", "from_", "of")


class Block(BaseModel):
    """Attributes, by the names of the language; those that are None are left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def attributes(self) -> Iterator[w.Line]:
        """The lines of the block."""
        fields = type(self).model_fields
        for name in sorted(fields, key=lambda name: name not in _FIRST):
            field, value = fields[name], getattr(self, name)
            if (name == "kind" and isinstance(self, Stage)) or value is None:
                continue
            yield from self._lines(field.serialization_alias or name, value, field.metadata)

    def _lines(self, name: str, value: Any, marks: list[Any]) -> Iterator[w.Line]:
        if "word" in marks:
            if value:
                yield name
        elif "lines" in marks:
            yield from value
        elif "every" in marks:
            yield f"{name} every {_shown(value)} step{'s' if value != 1 else ''}"
        elif isinstance(value, Gate):
            yield from ("gate seq_len {", *(f"  {line}" for line in value.lines()), "}")
        else:
            yield name, _shown(value, text="text" in marks)

    def group(self) -> str:
        """The block as a value: `{ name = value, … }`."""
        lines = [line if isinstance(line, str) else f"{line[0]} = {line[1]}"
                 for line in self.attributes() if line]  # fmt: skip
        return f"{{ {', '.join(lines)} }}"


def _shown(value: Any, *, text: bool = False) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return w.real(Fraction(repr(value)))
    if isinstance(value, str):
        return w.quoted(value) if text else value
    if isinstance(value, Block):
        return value.group()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} {_shown(item)}' for name, item in value.items())} }}"
    return f"[{', '.join(_shown(item, text=text) for item in value)}]"


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


class Yarn(Block):
    """Positions that are stretched by `factor` over an `original` length."""

    factor: Number
    original: Number

    def group(self) -> str:
        return f"yarn {super().group()}"


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
    rope_scaling: Literal["none", "llama"] | Yarn | None = None
    tied: bool | None = None
    norm_eps: Number | None = None
    window: Number | None = None
    latent: Latent | None = None
    experts: Experts | None = None


class TokenizerTraining(Block):
    """A tokenizer to be trained."""

    on: list[Name]
    vocab: Number

    def group(self) -> str:
        return f"{{ on {_shown(self.on)}, vocab {_shown(self.vocab)} }}"


class Tokenizer(Block):
    """Where a tokenizer comes from."""

    file: Text = None
    hub: Text = None
    bytes: Flag = False
    train: TokenizerTraining | None = None


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


class Dialog(Block):
    """A chat protocol."""

    protocol: Literal["llama3", "chatml"] | None = None
    template: Text = None
    header: Text = None
    end_of_turn: Text = None
    end_of_message: Text = None
    roles: list[Name] | None = None
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
    sample: Name | None = None
    documents: Number | None = None
    skip: Number | None = None
    fields_: Fields | None = _FIELDS
    tokens: Number | None = None
    holdout: Number | None = None
    bad_lines: Number | None = None
    kind: Literal["documents", "dialogs", "preferences", "prompts"] | None = None
    pairs: Number | None = None
    awaited: Flag = False
    candidates: Name | None = None
    filters: Annotated[list[str], "lines"] = []


class Cluster(Block):
    """Nodes and their devices; `gpus` as in `8 of "H100 80GB"`."""

    nodes: Number | None = None
    gpus: str | None = None
    cpus: Number | None = None
    price: Number | None = None


class Optimizer(Block):
    """The optimizer's settings."""

    kind: Literal["adamw", "adam"] = "adamw"
    betas: list[float] | None = None
    weight_decay: Number | None = None
    eps: Number | None = None

    def group(self) -> str:
        given = {k: v for k, v in self if k != "kind" and v is not None}
        shown = ", ".join(f"{name} = {_shown(value)}" for name, value in given.items())
        return f"{self.kind} {{ {shown} }}" if given else self.kind


class Needle(Block):
    """The grid of a needle-in-a-haystack evaluation."""

    lengths: list[Number] | None = None
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
    needle: Needle | None = None

    def lines(self) -> list[str]:
        """The statements of the block."""
        found = [f"require {condition}" for condition in self.require]
        if self.otherwise:
            found.append(f"otherwise {self.otherwise}")
        if self.needle:
            found.append(f"needle = {self.needle.group()}")
        return found


class Stage(Block):
    """What every kind of stage is: a block with a `kind`."""


class Training(Stage):
    """What all kinds of training have."""

    from_: Name | None = _FROM
    tokens: Number | None = None
    steps: Number | None = None
    epochs: Number | None = None
    seq_len: Schedule | None = None
    batch: Schedule | None = None
    lr: Schedule | None = None
    data: Schedule | None = None
    parallel: Schedule | None = None
    optimizer: Optimizer | Literal["adamw", "adam", "last"] | None = None
    clip: Number | None = None
    precision: Literal["bf16", "fp32"] | None = None
    recompute: Literal["none", "selective", "full"] | None = None
    cluster: Name | None = None
    average: str | None = None
    checkpoint: Annotated[int | None, "every"] = None


class Train(Training):
    """Next-token training on documents."""

    kind: Literal["train"] = "train"
    model: Name | None = None
    rope_theta: Schedule | None = None
    rope_scaling: Literal["none", "llama"] | Yarn | None = None
    tokenizer: Name | None = None
    gate: Gate | None = None


class Sft(Training):
    """Supervised fine-tuning on dialogs."""

    kind: Literal["sft"] = "sft"
    dialog: Name | None = None
    loss: Literal["assistant", "all"] | None = None


class Preferences(Training):
    """What training on preferences has; responses more alike than `similar` are left out."""

    dialog: Name | None = None
    layout: Literal["joint", "pairs"] | None = None
    similar: Number | None = None

    def _lines(self, name: str, value: Any, marks: list[Any]) -> Iterator[w.Line]:
        if name == "similar":
            yield f"drop similar > {_shown(value)}"
        else:
            yield from super()._lines(name, value, marks)


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
    normalize: bool | None = None
    mask: Literal["none", "formatting"] | None = None


class Score(Stage):
    """Cross-entropy of every document of some datasets, for filters."""

    kind: Literal["score"] = "score"
    from_: Name | None = _FROM
    data: list[Name]
    seq_len: Number | None = None


class Sample(Stage):
    """Rejection sampling."""

    kind: Literal["sample"] = "sample"
    from_: Name | None = _FROM
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
    of: list[Name]
    weights: list[Number] | None = None


class Checkpoint(Stage):
    """The weights of a stage on its way."""

    kind: Literal["checkpoint"] = "checkpoint"
    from_: Name | None = _FROM
    after: Number


class Measuring(Stage):
    """What can be measured of a model."""

    loss: list[Name] | None = None
    seq_len: Number | None = None
    needle: Needle | None = None
    accuracy: list[Name] | None = None
    judge: Name | None = None
    prompts: Name | None = None
    limit: Number | None = None
    max_tokens: Number | None = None
    temperature: Number | None = None
    dialog: Name | None = None
    suites: dict[str, list[str]] | None = None
    tasks: Text = None

    def _lines(self, name: str, value: Any, marks: list[Any]) -> Iterator[w.Line]:
        if name == "suites":
            shown = (f"{suite} {_shown(tasks, text=True)}" for suite, tasks in value.items())
            yield name, f"{{ {', '.join(shown)} }}"
        else:
            yield from super()._lines(name, value, marks)


class Evaluate(Measuring):
    """Measures of a stage's result."""

    kind: Literal["evaluate"] = "evaluate"
    from_: Name | None = _FROM


class Best(Measuring):
    """The best of several stages by one measure."""

    kind: Literal["best"] = "best"
    of: list[Name]


AnyStage: TypeAlias = Annotated[
    Train | Sft | Reward | Dpo | Score | Sample | Checkpoint | Average | Evaluate | Best,
    Field(discriminator="kind"),
]


class Rounds(Block):
    """Stages repeated `count` times."""

    kind: Literal["rounds"] = "rounds"
    count: int
    stages: dict[str, AnyStage]


class Claim(Block):
    """A published figure: `value` within a tolerance, with why that is wide, or what refutes it.

    Its name may have a moment: `pretrain.lr at 2000 steps`.
    """

    value: Number
    within: Number
    because: Text = None
    contradicted: Text = None
    cite: Text = None


class Recipe(Block):
    """Everything that a spec declares, by name and in order."""

    name: str
    title: Text = None
    cite: Text = None
    seed: int | None = None
    notes: Text = None
    tracking: Literal["wandb"] | None = None
    models: dict[str, Model] = {}
    tokenizers: dict[str, Tokenizer] = {}
    datasets: dict[str, Dataset] = {}
    dialogs: dict[str, Dialog] = {}
    clusters: dict[str, Cluster] = {}
    stages: dict[str, Annotated[AnyStage | Rounds, Field(discriminator="kind")]]
    expect: dict[str, Claim] = {}

    def text(self) -> str:
        """The spec."""
        header = ("title", "cite", "seed", "notes", "tracking")
        lines: list[w.Line] = [
            (name, json.dumps(value, ensure_ascii=False) if name != "tracking" else str(value))
            for name in header
            if (value := getattr(self, name)) is not None
        ]
        blocks = [w.block(f"recipe {self.name}", *lines)]
        groups = {"model": self.models, "tokenizer": self.tokenizers, "dataset": self.datasets,
                  "dialog": self.dialogs, "cluster": self.clusters}  # fmt: skip
        for keyword, group in groups.items():
            blocks += [w.block(f"{keyword} {n}", *each.attributes()) for n, each in group.items()]
        blocks += [_stage(name, stage) for name, stage in self.stages.items()]
        if self.expect:
            claims = [
                (what, f"{_shown(claim.value)} within {_shown(claim.within)}" + "".join(
                    f" {word} {w.quoted(text)}"
                    for word in ("because", "contradicted", "cite")
                    if (text := getattr(claim, word))
                ))
                for what, claim in self.expect.items()
            ]  # fmt: skip
            blocks.append(w.block("expect", *claims))
        return "\n\n".join(blocks) + "\n"

    def bound(self) -> "Bound":
        """The recipe as the compiler takes it.

        Raises: etude.SpecError: with all that is wrong; its places are in `text()`.
        """
        from . import loads

        return loads(self.text())


def _stage(name: str, stage: AnyStage | Rounds) -> str:
    if isinstance(stage, Rounds):
        inner = "\n\n".join(_stage(each, of) for each, of in stage.stages.items())
        body = "\n".join(f"  {line}" if line else "" for line in inner.splitlines())
        return f"rounds {name} {stage.count} {{\n{body}\n}}"
    return w.block(f"stage {name}: {stage.kind}", *stage.attributes())
