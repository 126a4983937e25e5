"""Recipes from Python: pydantic models of everything that a spec declares.

from etude.build import Dataset, Model, Recipe, Tokenizer, Train

recipe = Recipe(
    name="small",
    models={"tiny": Model(layers=2, dim=64, heads=4, ffn=128)},
    …
)
print(recipe.text())

The models are the JSON form of specs (docs/json.md): `model_dump_json` writes what every command
reads, and `model_validate_json` reads the output of `etude fmt --to json`. Attributes have the
names of the language; `from` is `from_`, and `fields` is `fields_`. A value is a number, a flag, a
list, a group, or a string in spec notation, such as `lr="0 -> 3e-4 for 2000 steps then -> 0"`.
Attributes that are texts in a spec, such as titles and files, are plain strings. The models check
only names and kinds; values are checked with the whole spec. The models of blocks are generated
from the schema of the language into `blocks.py` and `stage_blocks.py`.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field

from .attributes import Attributes as Attributes
from .attributes import Let as Let
from .attributes import Name, Number, Reasons, Sources, Text, Value, Written
from .blocks import Cluster as Cluster
from .blocks import Dataset as Dataset
from .blocks import Dialog as Dialog
from .blocks import Experts as Experts
from .blocks import Fields as Fields
from .blocks import Gate as Gate
from .blocks import Header as Header
from .blocks import Latent as Latent
from .blocks import Model as Model
from .blocks import Needle as Needle
from .blocks import Optimizer as Optimizer
from .blocks import Precision as Precision
from .blocks import RopeScaling as RopeScaling
from .blocks import Tokenizer as Tokenizer
from .blocks import TokenizerTraining as TokenizerTraining
from .blocks import Verifier as Verifier
from .stage_blocks import AnyStage as AnyStage
from .stage_blocks import Average as Average
from .stage_blocks import Best as Best
from .stage_blocks import Checkpoint as Checkpoint
from .stage_blocks import Distill as Distill
from .stage_blocks import Dpo as Dpo
from .stage_blocks import Ensemble as Ensemble
from .stage_blocks import Evaluate as Evaluate
from .stage_blocks import Grpo as Grpo
from .stage_blocks import Kto as Kto
from .stage_blocks import Measuring as Measuring
from .stage_blocks import PreferenceTraining as PreferenceTraining
from .stage_blocks import Prm as Prm
from .stage_blocks import Reward as Reward
from .stage_blocks import Sample as Sample
from .stage_blocks import Score as Score
from .stage_blocks import Sft as Sft
from .stage_blocks import Stage as Stage
from .stage_blocks import Train as Train
from .stage_blocks import Training as Training

if TYPE_CHECKING:
    from .loaded import Spec


class Rounds(Written):
    """Stages repeated `count` times."""

    kind: Literal["rounds"] = "rounds"
    count: Number
    stages: dict[str, AnyStage]
    allow: Reasons = {}


class Claim(Written):
    """A published figure: `value` within a tolerance, with why that is wide, or what refutes it.

    Its name may include a point in a stage: `pretrain.lr at 2000 steps`.
    """

    value: Number
    within: Number | None = None
    because: Text = None
    contradicted: Text = None
    cite: Text = None


class Expect(Written):
    """Claims by the names of figures, with several of the same in a list, and silenced findings."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Claim | list[Claim]]

    allow: Reasons = {}


class Variant(Written):
    """A named change to the recipe.

    Attributes:
        set: values by the paths that they change: `pretrain.lr`.
    """

    set: dict[str, Value] = {}
    sources: Sources = {}
    allow: Reasons = {}


class Use(Written):
    """A file whose stages follow a stage of this file."""

    file: str
    after: Name | None = None


class Recipe(Header):
    """All declarations of a spec, by name and in order."""

    schema_: str | None = Field(
        default=None,
        validation_alias=AliasChoices("$schema", "schema_"),
        serialization_alias="$schema",
    )
    etude_spec: Literal[1] = 1
    name: str
    use: list[str | Use] = []
    let: dict[str, Value] = {}
    models: dict[str, Model] = {}
    tokenizers: dict[str, Tokenizer] = {}
    datasets: dict[str, Dataset] = {}
    dialogs: dict[str, Dialog] = {}
    verifiers: dict[str, Verifier] = {}
    clusters: dict[str, Cluster] = {}
    stages: dict[str, Annotated[AnyStage | Rounds, Field(discriminator="kind")]] = {}
    expect: dict[str, Claim | list[Claim]] | Expect | list[Expect] = {}
    variants: dict[str, Variant] = {}

    def json_text(self) -> str:
        """The spec in its JSON form, formatted; places of diagnostics refer to this text."""
        from .spec.json.json_text import laid_out, read
        from .spec.source import Source

        node = read(Source("<text>", self.model_dump_json()), _report())
        assert node
        return laid_out(node)

    def text(self) -> str:
        """The spec as text.

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

        Raises: etude.SpecError: with all errors; their places are in `json_text()`.
        """
        from .loaded import loaded
        from .spec.load import reads

        return loaded(reads(self.json_text()))


def _report() -> Any:
    from .spec.findings.diagnostics import Report

    return Report()
