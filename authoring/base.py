"""The spec that an imported or new stage continues from."""

from fractions import Fraction
from pathlib import Path

from ..compiler.driver import analyse
from ..spec.findings.diagnostics import Report
from ..spec.load import read
from ..spec.schema import recipe as r
from .draft import Base
from .model_parts import Model
from .tree import ConfigError


def base_of(spec: Path, folder: Path, report: Report) -> tuple[Base, Model] | None:
    """What there is to know of a spec that another one in `folder` is to `use`.

    Args:
        report: takes what is wrong with the spec; None is returned where that includes an error.

    Raises: ConfigError: it is not in the folder or below it, or none of its stages makes a
        language model.
    """
    try:
        inside = spec.resolve().relative_to(folder.resolve())
    except (OSError, ValueError):
        raise ConfigError(
            f"{spec} is not in the folder of the new spec, which can `use` only what is",
            help=f"write the new spec beside it: -o {spec.parent / 'new.etude'}",
        ) from None
    found = analyse(read(spec))
    for each in found.report.diagnostics:
        report.take(each)
    recipe, program = found.recipe, found.program
    if recipe is None or program is None:
        return None
    stage = _last_model(recipe)
    if stage is None:
        raise ConfigError(f"no stage of {spec} makes a model that writes text")
    groups = (
        recipe.models,
        recipe.tokenizers,
        recipe.datasets,
        recipe.clusters,
        recipe.dialogs,
        recipe.stages,
    )
    names = frozenset(name for group in groups for name in group)
    trained = program.trained(_unrolled(stage, recipe))
    segment = trained.segments[-1]
    resources = segment.resources
    batch = trained.batches[-1].sequences * segment.seq_len
    annealed = trained.lr[-1].end == 0
    rate = Fraction(repr(trained.lr[0].start or max(p.end for p in trained.lr)))
    model = Model(
        stage,
        segment.seq_len,
        segment.rope_theta,
        resources.world_size,
        resources.tensor,
        resources.pipeline,
        batch,
        resources.device == "cpu",
        rate if annealed else None,
        resources.context,
        tuple(recipe.dialogs),
        names,
    )
    return Base(inside.as_posix(), stage, names), model


def _unrolled(stage: str, recipe: r.Recipe) -> str:
    """The name in the program: of stages in rounds, that of the last round."""
    rounds, _, own = stage.partition(".")
    of = recipe.stages[rounds]
    return f"{rounds}.{of.count}.{own}" if isinstance(of, r.Rounds) else stage


def _last_model(recipe: r.Recipe) -> str | None:
    """The last stage with weights that is not a reward model, as specs write it."""
    for name, stage in reversed(recipe.stages.items()):
        inner = stage.stages if isinstance(stage, r.Rounds) else {"": stage}
        for own, each in reversed(inner.items()):
            written = isinstance(each, r.Train | r.Sft | r.Dpo | r.Average | r.Best)
            if written and not _of_rewards(each, recipe):
                return f"{name}.{own}" if own else name
    return None


def _of_rewards(stage: r.Stage, recipe: r.Recipe) -> bool:
    """Whether an average or a choice is one of reward models."""
    if not isinstance(stage, r.Average | r.Best):
        return False
    first = recipe.stages.get(stage.of[0].partition("[")[0]) if stage.of else None
    return isinstance(first, r.Reward)
