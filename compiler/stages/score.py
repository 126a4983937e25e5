"""Scores: the cross-entropy of every document of some data sets, used by filters."""

from typing import TYPE_CHECKING

from ...spec.record import replace
from ...spec.schema import recipe as r
from ..placement import flat
from ..program import ScheduledStage, StageOfOne
from ..resolve.scope import Scope
from .kind import Kind
from .sources import source_of

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class ScoreStage(StageOfOne):
    """A score stage."""

    spec: r.Score


def resolve(spec: r.Score, scope: Scope) -> ScoreStage | None:
    """The stage with its names resolved; None after reporting."""
    source = source_of(spec, scope, "has no model to score with")
    for name in spec.data:
        scope.data(name, "documents", spec.at("data"))
    stage = scope.language_model(source, spec.at("from")) if source else None
    if source is None or stage is None:
        return None
    return ScoreStage(name=spec.name, spec=spec, of=source, model=scope.trained(stage).model)


def lower(stage: ScoreStage, to: "Lowering") -> None:
    """Adds the jobs of the stage, one per data set."""
    from ..lowering.reading import documents, with_reading
    from ..plan.plan import ScoreJob
    from ..torchtitan.configuration import torchtitan

    trained = to.program.trained(stage.of)
    last, rates = trained.last, trained.lr if isinstance(trained, ScheduledStage) else []
    mesh = flat(last.resources)
    micro_batch = last.micro_batch if mesh == last.resources else 1
    form = replace(last, resources=mesh, micro_batch=micro_batch)
    for name in stage.spec.data:
        data = to.jobs.documents(name, trained.tokenizer, filtered=False)
        seq_len = stage.spec.seq_len or form.seq_len
        longer = seq_len > form.seq_len
        read = replace(form, seq_len=seq_len, micro_batch=1) if longer else form
        content = {
            "model": trained.model.knowing(max(seq_len, last.seq_len), last.rope_theta),
            "source": name,
            "seq_len": seq_len,
            "resources": read.resources,
            "torchtitan": torchtitan(trained, read, 1, to.jobs.seed, rates),
        }
        content = with_reading(content, [documents(to.jobs.recipe.datasets[name], seq_len)])
        inputs = {"model": to.jobs.result[stage.of], f"data:{name}": data}
        key = to.jobs.add(ScoreJob, content, inputs, id=f"{stage.name}.{name}", stage=stage.name)
        to.jobs.scores[stage.name, name] = key


SCORE = Kind(resolve=resolve, lower=lower)
