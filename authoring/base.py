"""The spec that an imported or new stage goes on from."""

from pathlib import Path

from ..compiler.check import check_recipe
from ..spec import recipe as r
from ..spec.diagnostics import Report
from ..spec.load import load
from .draft import Base
from .tree import ConfigError


def base_of(spec: Path, folder: Path, report: Report) -> Base | None:
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
    recipe = load(spec, report)
    if recipe is None or check_recipe(recipe, report) is None:
        return None
    stage = _last_model(recipe)
    if stage is None:
        raise ConfigError(f"no stage of {spec} makes a model that writes text")
    groups = (recipe.models, recipe.tokenizers, recipe.datasets, recipe.clusters, recipe.dialogs,
              recipe.stages)  # fmt: skip
    names = frozenset(name for group in groups for name in group)
    return Base(inside.as_posix(), stage, names)


def _last_model(recipe: r.Recipe) -> str | None:
    """The last stage with weights that is no reward model, as specs write it."""
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
