"""The plan of a program: its jobs, and a summary of its stages for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..spec.findings.diagnostics import Silenced
from ..spec.quantity import counted, plain, short
from ..spec.record import fields
from ..spec.schema.recipe import Recipe, Tracker, Training, attributes
from .as_written import settings, written, written_batch
from .families.adapters import adapter_parameters
from .plan.checkpoints import in_words as saving_in_words
from .plan.checkpoints import profiled_in_words, saving
from .plan.phases import phases_of
from .plan.plan import Plan, SilencedFinding, StageSummary, TrainJob
from .plan.provenance import Origins, declared, in_words
from .plan.sources import count
from .plan.summary import Count
from .plan.summary import Tracker as PlannedTracker
from .plan.totals import totals
from .program import Lowered, ScheduledStage, Stage, StageOfMany
from .stages import KINDS
from .stages.kind import TrainingKind
from .values import Claim, Profile, Scaled

APART = ("from", "dialog")
"""Attributes that a stage's settings do not list: what it continues from, and the protocol."""
MOST_SHOWN = 6
"""Of more consecutive values than this, only the ends are shown."""


def planned(
    recipe: Recipe,
    program: Lowered,
    claims: Sequence[Claim],
    silenced: Sequence[Silenced],
    miniature: list[Scaled] | None = None,
) -> Plan:
    """The plan of a recipe.

    Args:
        program: the recipe after all passes, with its jobs.
        claims: those of the recipe, compared with what is computed.
        silenced: the findings that the recipe allows.
        miniature: the attributes that changed, if the recipe is a miniature.
    """
    header = recipe.header
    origins = Origins(program)
    return Plan(
        etude_plan=1,
        recipe=header.name,
        title=header.title or header.name,
        cite=header.cite,
        seed=header.seed,
        tracking=_tracking(header.tracking or ()),
        variant=recipe.variant or None,
        changes=recipe.sets,
        variants=list(recipe.variants),
        values=declared(program),
        miniature=miniature,
        silenced=[
            SilencedFinding(
                code=each.finding.code, message=each.finding.message, reason=each.reason
            )
            for each in silenced
        ],
        sources=None if miniature else count(recipe),
        outputs=program.outputs,
        stages={name: _summary(stage, origins) for name, stage in program.stages.items()},
        totals=totals(program.jobs),
        claims=list(claims),
        jobs=program.jobs,
        phases=phases_of(program.jobs),
        counts=list(_counts(program)),
        files={path: sha for each in program.folders.values() for path, sha in each.files.items()},
    )


def _tracking(trackers: Sequence[Tracker]) -> str | list[PlannedTracker] | None:
    """A tracker without settings as its name alone, as plans had it when there was only one."""
    found = [
        PlannedTracker(kind=one.kind, project=one.project, group=one.group, entity=one.entity)
        for one in trackers
    ]
    alone = len(found) == 1 and found[0] == PlannedTracker(kind=found[0].kind)
    return found[0].kind if alone else found or None


def _counts(program: Lowered) -> Iterator[Count]:
    """The counts on which the lengths of stages depend."""
    first = {job.stage: job for job in reversed(program.jobs) if isinstance(job, TrainJob)}
    for name, stage in program.stages.items():
        if not isinstance(stage, ScheduledStage):
            continue
        for each in stage.counts.values():
            job = first[name]
            yield Count(
                stage=name,
                dataset=each.dataset,
                job=job.inputs[f"data:{each.dataset}"],
                identity=each.identity,
                unit=each.unit,
                numbers=list(each.numbers),
                exact=each.exact,
                said=each.said,
                seed=job.seed,
                seq_len=stage.segments[-1].seq_len,
            )


def _scaling(stage: ScheduledStage) -> dict[str, str]:
    model = stage.model
    if model.rope_scaling == "none":
        return {}
    original = plain(model.rope_original)
    shown = f"{model.rope_scaling}, factor {model.rope_factor:g} over {original} tokens"
    if (model.rope_low, model.rope_high) != (1, 4):
        shown += f", between {model.rope_low:g} and {model.rope_high:g} turns"
    return {"rope_scaling": shown}


def _summary(stage: Stage, origins: Origins) -> StageSummary:
    trains = isinstance(stage, ScheduledStage)
    shown = _trained(stage) if trains else _settings(stage)
    return StageSummary(
        kind=stage.spec.kind,
        counts="dialogs" if trains and stage.spec.counts == "dialogs" else None,
        goes_on_from=None if isinstance(stage, StageOfMany) else next(iter(stage.sources), None),
        tokens=stage.tokens if trains else 0,
        steps=stage.steps if trains else 0,
        values={n: origins.record(v, origins.stage(stage, n)) for n, v in shown.items()},
    )


def _trained(stage: ScheduledStage) -> dict[str, str]:
    """What is shown for a training stage."""
    end = stage.end
    unit = stage.spec.counts if stage.spec.padded else "seqs"
    shown = {
        "model": f"{stage.model.family} {stage.model.size or ''}".strip(),
        **_given(stage.spec, "tokens", "steps", "epochs"),
        "seq_len": " → ".join(plain(v) for _, _, v in stage.lengths),
        "batch": _few([counted(b.sequences, unit) for b in stage.batches]),
        "lr": f"{float(end.lr):.4g}",
        "data": ", ".join(f"{n} {short(s * 100)}%" for n, s in end.data.items()),
        "rope_theta": plain(end.rope_theta),
        **_scaling(stage),
        "parallel": ", ".join(f"{k} {v}" for k, v in end.parallel.items()) or "data parallel",
        **_inherited(stage),
        "precision": stage.precision.shown(),
        "recompute": stage.recompute,
        **saving_in_words(saving(stage.spec)),
        "optimizer": f"{settings(stage.optimizer)}, state "
        + ("carried over" if stage.carries else "fresh"),
    }
    for knob in ("seq_len", "batch", "lr", "data"):
        given = getattr(stage.spec, knob)
        if given and [segment.shape for segment in given.segments] != ["hold"]:
            shown[knob] = written_batch(given, stage.spec) if knob == "batch" else written(given)
    if asked := stage.spec.profile:
        memory, ranks = ", memory" * asked.memory, ", all ranks" * (asked.ranks == "all")
        steps = Profile(from_step=asked.steps[0], to_step=asked.steps[-1] + 1)
        shown["profile"] = profiled_in_words(steps) + memory + ranks
    if "dialog" in stage.origins:
        shown["dialog"] = _dialog(stage.dialog)
    if adapter := stage.spec.adapter:
        count = adapter_parameters(adapter, stage.model)
        shown["adapter"] = f"{adapter.shown()}, {short(count)} parameters"
    shown |= _optimized(stage.spec)
    if _reference(stage) and "reference" not in shown:
        shown["reference"] = stage.parent or ""
    return shown | _given(stage.spec, *(name for name in stage.spec.places if name not in shown))


def _optimized(spec: Any) -> dict[str, str]:
    """The objective of a stage: the attributes in which its kind differs from other training."""
    common = {*fields(Training), "dialog"}
    known = {n: says.name or n for n, of in fields(type(spec)).items() if (says := of.metadata)}
    values = {shown: getattr(spec, n) for n, shown in known.items() if n not in common}
    return {name: in_words(value) for name, value in values.items() if value is not None}


def _reference(stage: ScheduledStage) -> str | None:
    kind = KINDS[type(stage.spec)]
    return kind.way.reference(stage) if isinstance(kind, TrainingKind) else None


def _settings(stage: Stage) -> dict[str, str]:
    """What is shown for a stage that does not train."""
    spec, kind = stage.spec, KINDS[type(stage.spec)]
    known = attributes(type(spec))
    said = kind.said(stage)
    values = {}
    for name in known if kind.shown is None else kind.shown:
        needs = known[name].needs if name in known else ()
        idle = needs and all(getattr(spec, need) is None for need in needs)
        value = None if idle or name in APART else said.get(name, getattr(spec, name, None))
        if value is not None:
            values[name] = in_words(value)
    rendered = any(getattr(spec, name, None) for name in ("prompts", "accuracy"))
    if rendered and (dialog := getattr(stage, "dialog", None)):
        values["dialog"] = _dialog(dialog)
    return values | _given(spec, *(name for name in spec.places if name not in values))


def _inherited(stage: ScheduledStage) -> dict[str, str]:
    """The values in force of the attributes that a stage of this kind may inherit."""
    known = attributes(type(stage.spec))
    in_force = {name: value for name, value in stage.settings.items() if name in known}
    return {name: in_words(value) for name, value in in_force.items() if value is not None}


def _given(spec: Any, *names: str) -> dict[str, str]:
    """Those of the named attributes that the spec gives, as it writes them."""
    known = attributes(type(spec))
    return {
        name: written(getattr(spec, known[name].field))
        for name in names
        if name in spec.places and name in known
    }


def _dialog(settings: dict[str, Any] | None) -> str:
    assert settings
    return str(settings.get("protocol") or settings.get("template") or settings["header"].strip())


def _few(values: list[str]) -> str:
    """Consecutive values; for a ramp with many levels, the ends and the number of levels."""
    values = list(dict.fromkeys(values))
    if len(values) <= MOST_SHOWN:
        return " → ".join(values)
    return f"{values[0]} → {values[-1]} in {len(values)} levels"
