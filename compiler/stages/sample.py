"""Rejection sampling: answers for every prompt, of which the right ones, or a judge's best, are
kept."""

from typing import TYPE_CHECKING, Any

from ...spec.schema import recipe as r
from ..program import StageOfOne
from ..resolve.scope import Scope
from .kind import Kind
from .measuring import judge
from .sources import source_of
from .verifying import check_verifiers

if TYPE_CHECKING:
    from ..lowering.lowering import Lowering


class SampleStage(StageOfOne):
    """A sample stage; `keep` is the number of answers kept per prompt, 0 for all."""

    spec: r.Sample
    dialog: dict[str, Any]
    keep: int

    @property
    def shown_dialog(self) -> dict[str, Any] | None:
        return self.dialog


def resolve(spec: r.Sample, scope: Scope) -> SampleStage | None:
    """The stage with its names resolved; None after reporting."""
    source = source_of(spec, scope, "has no model to sample from")
    scope.data(spec.prompts, "prompts", spec.at("prompts"))
    if source is None:
        return None
    stage = scope.language_model(source, spec.at("from"))
    if spec.judge:
        judge(spec, scope, source)
    elif spec.keep and not spec.verify:
        scope.error(
            "E521",
            "`keep` needs a `judge` to rank the draws, or `verify` to tell which are right",
            spec.at("keep"),
            "write `judge = …` or `verify = [VERIFIER]`, or remove `keep` to keep all",
        )
    check_verifiers(spec.verify or [], scope, spec.at("verify"))
    if stage is None:
        return None
    trained = scope.trained(stage)
    dialog = scope.dialog(spec.dialog, trained.dialog, spec.at("dialog"))
    if dialog is None:
        return None
    keep = spec.keep if spec.keep is not None else 1 if spec.judge else 0
    if keep > spec.draws:
        scope.error(
            "E521",
            f"cannot keep {keep} of {spec.draws} draws",
            spec.at("keep"),
            f"write `draws = {keep}` or more",
        )
    return SampleStage(
        name=spec.name, spec=spec, of=source, dialog=dialog, keep=keep, model=trained.model
    )


def lower(stage: SampleStage, to: "Lowering") -> None:
    """Adds the jobs that draw, judge and keep; one that only judges is no result of the recipe."""
    from ..lowering.verifiers import all_planned, comparing
    from ..plan.plan import SampleJob

    spec = stage.spec
    verify = all_planned(to.jobs.recipe, spec.verify)
    drawn = to.models.drawn(
        to.models.result(stage.of),
        id=f"{stage.name}.draws",
        stage=stage.name,
        judges=[spec.judge] if spec.judge else [],
        settings={
            "dialog": stage.dialog,
            "prompts": spec.prompts,
            "limit": None,
            "draws": spec.draws,
            "temperature": spec.temperature,
            "top_p": spec.top_p,
            "max_tokens": spec.max_tokens,
            "seed": to.jobs.seed,
        },
        answers=comparing(verify),
    )
    inputs = {"draws": drawn}
    if spec.judge:
        inputs["judged"] = to.models.judged(
            drawn, spec.judge, stage.dialog, id=f"{stage.name}.judge", stage=stage.name
        )
    content = {
        "prompts": spec.prompts,
        "draws": spec.draws,
        "max_tokens": spec.max_tokens,
        "keep": stage.keep,
        "verify": verify,
    }
    inputs["prompts"] = to.jobs.by_key[drawn].inputs["prompts"]
    key = to.jobs.add(SampleJob, content, inputs, id=stage.name, stage=stage.name)
    to.jobs.result[stage.name] = key
    to.outputs[stage.name] = key
    to.unused.pop(spec.judge or "", None)


SAMPLE = Kind(
    resolve=resolve,
    lower=lower,
    shown=("prompts", "judge", "verify", "draws", "temperature", "top_p", "max_tokens", "keep"),
    said=lambda stage: {"keep": {0: "all", 1: "best"}.get(stage.keep, stage.keep)},
)
