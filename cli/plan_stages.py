"""Prints the stages of a plan with the value of every attribute."""

import re

from ..compiler.as_written import at_most, counted, in_bytes, measured
from ..compiler.ids import StageId
from ..compiler.plan.checkpoints import at_once, inside, size, staying
from ..compiler.plan.plan import GateJob, Plan, Provenance, StageSummary, TrainJob
from ..spec.schema.recipe import data_kind
from .screen import Ink, clean, say


def show_stages(plan: Plan) -> None:
    """Prints every stage; of repeated stages in rounds or variants, only the differences."""
    ink = Ink()
    gates = [job for job in plan.jobs if isinstance(job, GateJob) and not job.attempt]
    made = {job.stage for job in plan.jobs if not plan.aside(job)}
    early = {job.stage for job in plan.jobs if isinstance(job, TrainJob) and job.may_end_early}
    for name, summary in plan.stages.items():
        if plan.part and name not in made:
            continue
        first = _first(name, plan)
        values = summary.values if first is None else _differences(name, first, plan)
        like = f", as {ink(first, 'bold')}" + (" but" if values else "") if first else ""
        print()
        head = f"{ink(clean(name), 'bold')}: {_head(summary, early=name in early)}{like}"
        say(head, rest="  ", painted=True)
        width = max([11, *map(len, values)])
        for attribute, value in values.items():
            if attribute != "gate":  # shown below, as in the plan
                first, rest = f"  {attribute:<{width}} ", " " * (width + 3)
                origin = ink(f"({clean(value.origin)})", "dim")
                said = f"{clean(value.value)}  {origin}"
                say(said, first=first, rest=rest, painted=True)
        if saved := _saved(name, plan):
            say(saved, first=f"  {'saved':<{width}} ", rest=" " * (width + 3))
        if measured := _evaluated(name, plan):
            say(measured, first=f"  {'evaluated':<{width}} ", rest=" " * (width + 3))
        for gate in gates:
            if gate.stage == name:
                say(_gate(gate), first=f"  {'gate':<{width}} ", rest=" " * (width + 3))


def _saved(stage: str, plan: Plan) -> str:
    """The number of checkpoints during a stage's jobs, and the space that they take."""
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob) and job.stage == stage]
    jobs = [job for job in jobs if not job.extends]
    counts = [inside(job) for job in jobs]
    if not jobs or None in counts:
        return ""
    total = sum(filter(None, counts))
    if not total:
        return "no checkpoint except at the stage's end"
    room = max(at_once(job) * size(job) for job in jobs)
    room += sum(staying(job) * size(job) for job in jobs)
    each = in_bytes(max(map(size, jobs)))
    return f"about {counted(total, 'checkpoints')} of {each}; at most {in_bytes(room)} at once"


def _evaluated(stage: str, plan: Plan) -> str:
    """How often a stage is evaluated while it trains, what that takes, and whether it may end the
    stage."""
    jobs = [job for job in plan.jobs if isinstance(job, TrainJob) and job.stage == stage]
    found = [job.evaluation for job in jobs if job.evaluation and not job.extends]
    if not found:
        return ""
    tokens = sum(each.tokens for each in found)
    times = counted(sum(each.times for each in found), "times")
    parts = [f"{times}, {counted(tokens, 'tokens')} in all at most"]
    known = [each.reading for each in found if each.reading]
    if known:
        seconds = max(each.seconds or 0.0 for each in known)
        memory = in_bytes(max(each.least for each in known))
        parts.append(f"each {measured(seconds)} s at most, in {memory} of a GPU")
    return "; ".join(parts)


def _head(summary: StageSummary, *, early: bool) -> str:
    """What a stage does, in a few words.

    Args:
        early: whether it may end before its last step.
    """
    if not summary.steps:
        return summary.kind + (f" of {summary.goes_on_from}" if summary.goes_on_from else "")
    kind = "" if data_kind(summary.kind) == "documents" else f"{summary.kind}, "
    steps = f"{'≤ ' if early else ''}{counted(summary.steps, 'steps')}"
    tokens = f"{'≤ ' if early else at_most(summary.rows)}{counted(summary.tokens, 'tokens')}"
    return f"{kind}{tokens}, {steps}"


def _first(name: str, plan: Plan) -> str | None:
    """The stage that a stage is compared with: that of the first round, or the recipe's own."""
    stage = StageId.parse(name)
    first = stage.original if stage.variant else stage._replace(round=min(stage.round, 1))
    return str(first) if first != stage and str(first) in plan.stages else None


def _differences(name: str, first: str, plan: Plan) -> dict[str, Provenance]:
    """The values that differ from the other stage's, ignoring the names of rounds and variants."""

    def plain(stage: str, attribute: str) -> str | None:
        # `align.2.drafts` in round 2 corresponds to `align.1.drafts` in the first.
        value = plan.stages[stage].values.get(attribute)
        shown = value and value.value
        of = StageId.parse(stage)
        for place in (of.group, of.unit):
            shown = re.sub(rf"\b{re.escape(place)}\.", "", shown) if shown and place else shown
        return shown

    return {
        attribute: value
        for attribute, value in plan.stages[name].values.items()
        if plain(name, attribute) != plain(first, attribute)
    }


def _gate(gate: GateJob) -> str:
    parts = [
        f"{q.measure} {q.op} " + measured(q.value, 4) + (" × start" if q.of_start else "")
        for q in gate.requirements
    ]
    times = counted(gate.attempts, "times")
    return f"after {gate.what}: {' and '.join(parts)}, extended up to {times}"
