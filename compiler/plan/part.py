"""Parts of a plan: until a stage, from a stage, or one stage alone.

A part is a plan with fewer jobs. The jobs that make its starting point stay in it, aside: their
results must exist and are not made. Keys are those of the whole plan.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ...spec.findings.diagnostics import did_you_mean
from ...spec.schema.recipe import STAGES
from .phases import phases_of
from .plan import ExportJob, GateJob, Part, Plan
from .totals import totals


class NoSuchStage(Exception):
    """The name of a stage that the plan does not have, or that has no jobs.

    Attributes:
        message, help: for people.
    """

    def __init__(self, message: str, help: str) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def part_of(
    plan: Plan, *, until: str | None = None, only: str | None = None, since: str | None = None
) -> Plan:
    """The part of a plan; the plan itself without arguments.

    Args:
        until: the last stage of the part, in the order of the plan; later ones are left out.
        since: its first stage.
        only: its one stage. A name also stands for all stages in it: `align` for those of all
            rounds, `align.2` for those of one.

    Raises: NoSuchStage
    """
    if not (until or only or since):
        return plan
    jobs = plan.jobs
    chosen = {job.id for job in jobs}
    if until:
        chosen &= _until(jobs, stages_of(plan, until))
    if since:
        first = min(_work(jobs, stages_of(plan, since)))
        if until and first > max(_work(jobs, stages_of(plan, until))):
            raise NoSuchStage(
                f"`{until}` ends before `{since}` begins, so nothing of the plan is left",
                f"swap them: --from {until} --until {since}",
            )
        chosen &= {job.id for job in jobs[first:]}
    if only:
        stages = stages_of(plan, only)
        chosen &= {job.id for job in jobs if job.stage in stages}
    chosen |= _data(jobs, chosen)
    return cut(plan, chosen, Part(until=until, only=only, since=since, aside=[], left_out={}))


def cut(plan: Plan, chosen: set[str], asked: Part) -> Plan:
    """A plan that makes only the chosen jobs; those that they depend on stay in it, aside.

    Args:
        chosen: the ids of jobs.
        asked: what was asked for.
    """
    jobs = plan.jobs
    kept = chosen | _before(jobs, chosen)
    aside = [job.id for job in jobs if job.id in kept - chosen]
    left_out = {job.id: job.key for job in jobs if job.id not in kept}
    mine = [job for job in jobs if job.id in chosen]
    made = {job.key for job in mine}
    models = {f"export.{job.stage}": job.stage for job in mine if job.stage}
    exported = {models[job.id]: job.key for job in mine if job.id in models}
    return plan.model_copy(
        update={
            "part": asked.model_copy(update={"aside": aside, "left_out": left_out}),
            "jobs": [job for job in jobs if job.id in kept],
            "outputs": exported | {n: key for n, key in plan.outputs.items() if key in made},
            "totals": totals(mine),
            "phases": phases_of(mine),
        }
    )


def needed(plan: Plan) -> list[Any]:
    """The jobs aside whose results the part starts from, in order, and the gates on them."""
    if plan.part is None:
        return []
    aside = set(plan.part.aside)
    keys = {key for job in plan.jobs if job.id not in aside for key in job.inputs.values()}
    return [
        job
        for job in plan.jobs
        if job.id in aside
        and not job.extends
        and (job.key in keys or (isinstance(job, GateJob) and job.segment in keys))
    ]


def beside(plan: Plan) -> bool:
    """Whether other parts of the same sweep may be run beside this one."""
    return plan.part is not None and plan.part.beside


def options(plan: Plan) -> str:
    """The command line options for the plan's part, with a leading space; "" for the whole."""
    part = plan.part
    given = (("--from", part.since), ("--until", part.until), ("--only", part.only)) if part else ()
    return "".join(f" {option} {name}" for option, name in given if name)


def stages_of(plan: Plan, name: str) -> set[str]:
    """The stages with jobs that a name stands for.

    Raises: NoSuchStage
    """
    found = {stage for stage in plan.stages if stage == name or stage.startswith(f"{name}.")}
    having = {job.stage for job in plan.jobs}
    if found & having:
        return found & having
    if not found:
        stages = [stage for stage in plan.stages if stage in having]
        groups = {stage[:end] for stage in stages for end in _dots(stage)}
        close = did_you_mean(name, [*stages, *sorted(groups)])
        raise NoSuchStage(
            f"the plan has no stage `{name}`", close or f"its stages are {', '.join(stages)}"
        )
    if plan.part is not None:
        raise NoSuchStage(
            f"this is a part of a plan without `{name}`",
            f"run it first: etude run SPEC --until {name}",
        )
    kind = STAGES.get(plan.stages[name].kind) if name in plan.stages else None
    if kind and kind.moment:
        of = plan.stages[name].goes_on_from
        raise NoSuchStage(
            f"the stage `{name}` has no separate job: it is a point inside `{of}`", f"name `{of}`"
        )
    raise NoSuchStage(
        f"the stage `{name}` has no separate job: another stage does the same work",
        "name that stage; `etude plan` shows both",
    )


def _dots(stage: str) -> list[int]:
    return [place for place, letter in enumerate(stage) if letter == "."]


def _until(jobs: Sequence[Any], stages: set[str]) -> set[str]:
    """The jobs of stages up to the last one of some stages, with the exports of their models, which
    may come later in the plan."""
    last = max(_work(jobs, stages))
    done = {job.key for job in jobs[: last + 1]}
    return {job.id for job in jobs[: last + 1] if job.stage is not None} | {
        job.id for job in jobs if isinstance(job, ExportJob) and job.inputs["model"] in done
    }


def _work(jobs: Sequence[Any], stages: set[str]) -> list[int]:
    """The places of some stages' jobs in the plan; exports, which may come much later, count only
    if there are no other jobs."""
    own = [place for place, job in enumerate(jobs) if job.stage in stages]
    return [place for place in own if not isinstance(jobs[place], ExportJob)] or own


def _data(jobs: Sequence[Any], chosen: Iterable[str]) -> set[str]:
    """The jobs outside of stages, which make data and tokenizers, that the chosen jobs take."""
    return _closed(jobs, set(chosen), lambda job: job.stage is None) - set(chosen)


def _before(jobs: Sequence[Any], chosen: set[str]) -> set[str]:
    """All jobs that the chosen ones depend on, with their gates and the gates' extensions."""
    found = chosen
    while True:
        keys = {job.key for job in jobs if job.id in found}
        gates = {
            job.id
            for job in jobs
            if (isinstance(job, GateJob) and job.segment in keys)
            or (job.extends and job.extends.gate in keys)
        }
        wider = _closed(jobs, found | gates, lambda job: True)
        if wider == found:
            return found - chosen
        found = wider


def _closed(jobs: Sequence[Any], chosen: set[str], takes: Any) -> set[str]:
    """Some jobs, and those whose results they take, as far as `takes` says."""
    found = set(chosen)
    wanted = {key for job in jobs if job.id in found for key in job.inputs.values()}
    for job in reversed(jobs):
        if job.key in wanted and job.id not in found and takes(job):
            found.add(job.id)
            wanted |= set(job.inputs.values())
    return found
