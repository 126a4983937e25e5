"""The plan of a program: its jobs, with what people want to see of its stages."""

from collections.abc import Sequence
from math import fsum
from typing import Any

from ..spec.findings.diagnostics import Silenced
from ..spec.quantity import counted, plain, short
from ..spec.schema.recipe import Recipe, attributes
from .as_written import written
from .costs.jobs import digits
from .plan.phases import phases_of
from .plan.plan import Plan, Provenance, SilencedFinding, StageSummary, Totals, TrainJob
from .plan.provenance import Origins, declared, in_words
from .plan.sources import count
from .program import Program, TrainStage, WeightsStage
from .values import Scaled

MOST_SHOWN = 6
"""Of more values that follow each other only the ends are shown."""


def planned(
    recipe: Recipe,
    program: Program,
    silenced: Sequence[Silenced],
    miniature: list[Scaled] | None = None,
) -> Plan:
    """The plan of a recipe.

    Args:
        program: the recipe after all passes, with its jobs.
        silenced: what the recipe allows of what was found in it.
        miniature: what became of what, where the recipe is a miniature.
    """
    header = recipe.header
    origins = Origins(program)
    return Plan(
        etude_plan=1,
        recipe=header.name,
        title=header.title or header.name,
        cite=header.cite,
        seed=header.seed,
        tracking=header.tracking,
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
        totals=_totals(program.jobs),
        claims=program.claims,
        jobs=program.jobs,
        phases=phases_of(program.jobs),
    )


def _totals(jobs: list[Any]) -> Totals:
    trained = [job for job in jobs if isinstance(job, TrainJob) and not job.extends]

    def total(name: str) -> float | None:
        values = [getattr(job.cost, name) for job in trained]
        if not values or any(value is None for value in values):
            return None
        return digits(fsum(values))

    return Totals(
        tokens=sum(job.tokens for job in trained),
        steps=sum(job.steps for job in trained),
        flops=sum(job.cost.flops for job in trained),
        seconds=total("seconds"),
        gpu_hours=total("gpu_hours"),
        energy_kwh=total("energy_kwh"),
        price=total("price"),
    )


def _scaling(stage: TrainStage) -> dict[str, str]:
    model = stage.model
    if model.rope_scaling == "none":
        return {}
    original = plain(model.rope_original)
    shown = f"{model.rope_scaling}, factor {model.rope_factor:g} over {original} tokens"
    if (model.rope_low, model.rope_high) != (1, 4):
        shown += f", between {model.rope_low:g} and {model.rope_high:g} turns"
    return {"rope_scaling": shown}


def _summary(stage: Any, origins: Origins) -> StageSummary:
    if isinstance(stage, WeightsStage):
        model = origins.recipe.models[stage.name]
        names = [n for n in ("weights", "hub", "revision", "context") if getattr(model, n)]
        return StageSummary(
            kind=stage.spec.kind,
            goes_on_from=None,
            tokens=0,
            steps=0,
            values={n: origins.record(str(getattr(model, n)), origins.of(model, n)) for n in names},
        )
    if not isinstance(stage, TrainStage):
        return StageSummary(
            kind=stage.spec.kind,
            goes_on_from=stage.of if isinstance(stage.of, str) else None,
            tokens=0,
            steps=0,
            values=_settings(stage, origins),
        )
    end = stage.end
    assert end
    optimizer = stage.optimizer
    unit = "pairs" if stage.spec.data_kind == "preferences" else "seqs"
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
        "precision": stage.precision,
        "recompute": stage.recompute,
        "optimizer": f"{optimizer.kind}, betas {list(optimizer.betas)}, "
        f"weight_decay {optimizer.weight_decay:g}, eps {optimizer.eps:g}, state "
        + ("carried over" if stage.carries else "fresh"),
    }
    for knob in ("seq_len", "batch", "lr", "data"):
        given = getattr(stage.spec, knob)
        if given and [segment.shape for segment in given.segments] != ["hold"]:
            shown[knob] = written(given)
    if "dialog" in stage.origins:
        shown["dialog"] = _dialog(stage.dialog)
    shown |= _optimized(stage.spec)
    if stage.spec.kind == "dpo" and "reference" not in shown:
        shown["reference"] = stage.parent or ""
    shown |= _given(stage.spec, *(name for name in stage.spec.places if name not in shown))
    return StageSummary(
        kind=stage.spec.kind,
        goes_on_from=stage.parent,
        tokens=stage.tokens,
        steps=stage.steps,
        values={n: origins.record(v, origins.stage(stage, n)) for n, v in shown.items()},
    )


OBJECTIVE = (
    "loss",
    "layout",
    "similar",
    "reference",
    "beta",
    "nll",
    "label_smoothing",
    "normalize",
    "mask",
)
"""Attributes that say what a stage after pre-training optimizes."""
OTHERS = (
    "of",
    "after",
    "weights",
    "prompts",
    "judge",
    "draws",
    "temperature",
    "top_p",
    "max_tokens",
    "keep",
    "data",
    "loss",
    "needle",
    "accuracy",
    "suites",
    "tasks",
    "limit",
    "seq_len",
)
"""Attributes that are shown of stages that do not train."""


def _settings(stage: Any, origins: Origins) -> dict[str, Provenance]:
    """The attributes of a stage that does not train, with where they came from."""
    values = {}
    for name in OTHERS:
        of = stage if name == "keep" and hasattr(stage, "keep") else stage.spec
        value = getattr(of, name, None)
        unset = name in ("temperature", "max_tokens") and not getattr(stage.spec, "prompts", None)
        if value is not None and not unset and not (name == "of" and isinstance(value, str)):
            if name == "keep":
                value = {0: "all", 1: "best"}.get(value, value)
            values[name] = origins.record(in_words(value), origins.stage(stage, name))
    rendered = any(getattr(stage.spec, name, None) for name in ("prompts", "accuracy"))
    if rendered and getattr(stage, "dialog", None):
        values["dialog"] = origins.record(_dialog(stage.dialog), origins.stage(stage, "dialog"))
    for name, value in _given(
        stage.spec, *(n for n in stage.spec.places if n not in values)
    ).items():
        values[name] = origins.record(value, origins.stage(stage, name))
    return values


def _optimized(spec: Any) -> dict[str, str]:
    """What a stage after pre-training optimizes."""
    known = attributes(type(spec))
    fields = {name: known[name].field if name in known else name for name in OBJECTIVE}
    values = {name: getattr(spec, field, None) for name, field in fields.items()}
    return {name: in_words(value) for name, value in values.items() if value is not None}


def _inherited(stage: TrainStage) -> dict[str, str]:
    """What is in force of the attributes that a stage of the kind may take over."""
    known = attributes(type(stage.spec))
    in_force = {name: value for name, value in stage.settings.items() if name in known}
    return {name: in_words(value) for name, value in in_force.items() if value is not None}


def _given(spec: Any, *names: str) -> dict[str, str]:
    """Those of some attributes that the spec gives, as it writes them."""
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
    """Values that follow each other; of a ramp with many levels the ends and their number."""
    values = list(dict.fromkeys(values))
    if len(values) <= MOST_SHOWN:
        return " → ".join(values)
    return f"{values[0]} → {values[-1]} in {len(values)} levels"
