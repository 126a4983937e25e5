"""The spec that an imported or new stage continues from."""

from fractions import Fraction
from pathlib import Path

from ..compiler.driver import analyse
from ..compiler.ids import StageId
from ..compiler.program import Scheduled, ScheduledStage
from ..spec.findings.diagnostics import Report
from ..spec.load import read
from ..spec.schema import recipe as r
from .draft import Base
from .model_parts import Model
from .tree import ConfigError


def base_of(spec: Path, folder: Path, report: Report) -> tuple[Base, Model] | None:
    """The file, stage, names and model of a spec that another one in `folder` is to `use`.

    Args:
        report: takes the spec's findings; with an error among them, None is returned.

    Raises: ConfigError: it is not in the folder or below it, or none of its stages makes a
        language model.
    """
    try:
        inside = spec.resolve().relative_to(folder.resolve())
    except (OSError, ValueError):
        raise ConfigError(
            f"{spec} is not in the folder of the new spec, which can `use` only files there",
            help=f"write the new spec next to it: -o {spec.parent / 'new.etude'}",
        ) from None
    found = analyse(read(spec))
    for each in found.report.diagnostics:
        report.take(each)
    recipe, program = found.recipe, found.program
    if recipe is None or program is None:
        return None
    last = _last_model(recipe, program)
    if last is None:
        raise ConfigError(f"no stage of {spec} trains a model that generates text")
    groups = (
        recipe.models,
        recipe.tokenizers,
        recipe.datasets,
        recipe.clusters,
        recipe.dialogs,
        recipe.verifiers,
        recipe.stages,
    )
    names = frozenset(name for group in groups for name in group)
    stage, trained = str(last[0].reference), last[1]
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


def _last_model(recipe: r.Recipe, program: Scheduled) -> tuple[StageId, ScheduledStage] | None:
    """The last stage whose weights generate text, and the stage that trained them; in rounds, that
    of the last round."""
    for name, stage in reversed(recipe.stages.items()):
        if isinstance(stage, r.Rounds):
            place = StageId("", rounds=name, round=stage.count)
            found = {place._replace(name=own): each for own, each in stage.stages.items()}
        else:
            found = {StageId(name): stage}
        for own, each in reversed(found.items()):
            trained = program.trained(str(own)) if each.continued else None
            if isinstance(trained, ScheduledStage) and trained.spec.writes_text:
                return own, trained
    return None
