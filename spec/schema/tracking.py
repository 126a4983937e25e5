"""Where a recipe's runs are logged besides their folder: `tracking`."""

from .. import syntax as s
from . import group_kinds as g
from . import kinds as k
from .convert import Invalid
from .declaration import Declaration, attribute

FORBIDDEN = "/\\#?%:"
"""Characters that names of projects cannot have in W&B (its documentation of `wandb.init`)."""
LONGEST = 128
"""Characters of the longest name of a project in W&B."""


class Label(k.Text):
    """A name that every tracker accepts."""

    @property
    def example(self) -> str:
        return '"llama"'

    def read(self, value: s.Value) -> str:
        said = k.text(value)
        wrong = next((char for char in said if char in FORBIDDEN or not char.isprintable()), "")
        why = (
            "it is empty"
            if not said.strip()
            else f"it has {wrong!r}"
            if wrong
            else f"it has {len(said)} characters, and {LONGEST} is the most"
            if len(said) > LONGEST
            else ""
        )
        if why:
            raise Invalid(
                "E202",
                f"this cannot be a name in a tracker: {why}",
                value.span,
                help=f'write a short name without {" ".join(FORBIDDEN)}: "llama"',
            )
        return said


class Tracker(Declaration):
    """A tracker of experiments, in which every stage is a run."""

    kind: str = "wandb"
    project: str | None = attribute(
        Label(), None, otherwise="`etude`", doc="its project; in MLflow, the experiment"
    )
    group: str | None = attribute(
        Label(),
        None,
        otherwise="the recipe's name",
        doc="what the runs of its stages are grouped by; in MLflow, a tag",
    )
    entity: str | None = attribute(
        Label(), None, otherwise="that of the login", doc="W&B's user or team, `wandb` only"
    )

    def shown(self) -> str:
        """As a spec writes it."""
        named = ((name, getattr(self, name)) for name in ("project", "group", "entity"))
        given = [f'{name} = "{value}"' for name, value in named if value is not None]
        return f"{self.kind} {{ {', '.join(given)} }}" if given else self.kind


TRACKING = g.Tagged(
    tags=("wandb", "mlflow", "trackio"),
    names=("wandb", "mlflow", "trackio", "tensorboard"),
    holds=Tracker,
    typical='project = "llama"',
    what="a tracker",
    help='write `wandb`, `mlflow`, `trackio` or `tensorboard`, or `wandb { project = "llama" }`',
    foreign="tracking",
    many=True,
    own={"entity": "wandb"},
)
