"""Descriptions of jobs in words, for the table, the page and the report."""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from ...spec.quantity import counted
from .plan import (
    AverageJob,
    BestJob,
    DatasetJob,
    DrawJob,
    EnsembleJob,
    EvaluateJob,
    HeldOutJob,
    JudgeJob,
    LikelihoodJob,
    Plan,
    ReferenceJob,
    RolloutJob,
    SampleJob,
    ScoreJob,
    TeacherJob,
    TrainJob,
    WeightsJob,
)


class Described(NamedTuple):
    """A job for people.

    Attributes:
        kind: of the job; "pause" for data that people have to provide.
        of: the stages whose models it takes, or "".
    """

    name: str
    kind: str
    of: str
    what: str


MEASURED = ("model", "scores", "draws")
"""Input roles that identify the measured model; the first one present counts."""


def describe(job: Any, takes: Mapping[str, str]) -> Described | None:
    """What a job does; None for jobs that prepare, train and export, which have their own tables.

    Args:
        takes: role → the name of the result that it takes, as in `results`; "" if it belongs to no
            stage.
    """
    say = DESCRIPTIONS.get(type(job))
    return say(job, takes) if say else None


def results(plan: Plan) -> dict[str, str]:
    """Key of a job → the name of its result: its stage, or a point in it."""
    found: dict[str, str] = {}
    for job in plan.jobs:
        if isinstance(
            job, HeldOutJob | DrawJob | JudgeJob | LikelihoodJob
        ):  # their results are about the model
            found[job.key] = found.get(job.inputs["model"], "")
        elif isinstance(job, EnsembleJob):
            found[job.key] = job.judge
        elif job.stage:
            found[job.key] = job.stage + _how_far(job)
    return found


def _how_far(job: Any) -> str:
    if isinstance(job, TrainJob) and job.segment < job.segments - 1:
        return f" after {counted(job.first_step + job.steps, 'steps')}"
    return ""


def described(plan: Plan) -> Iterator[Described]:
    """The jobs that neither prepare nor train, and pauses for files, once per file, in the order in
    which they run; without those that run only after a failed gate."""
    names = results(plan)
    waited: set[str] = set()
    for job in plan.jobs:
        if job.extends or plan.aside(job):
            continue
        if isinstance(job, DatasetJob) and job.awaited:
            new = [file for file in job.source["files"] if file not in waited]
            waited.update(new)
            if not new:
                continue
            job = job.model_copy(update={"source": {**job.source, "files": new}})
        takes = {role: names.get(key, "") for role, key in job.inputs.items()}
        if found := describe(job, takes):
            yield found


def _pause(job: DatasetJob, takes: Mapping[str, str]) -> Described | None:
    if not job.awaited:
        return None
    what = "waits for " + " and ".join(job.source["files"])
    if takes.get("candidates"):
        what += f", with the draws of {takes['candidates']} to label"
    return Described(job.name, "pause", "", what)


def _weights(job: WeightsJob, takes: Mapping[str, str]) -> Described:
    source = job.source
    where = source.get("folder") or f"{source['hub']}, revision {source['revision']}"
    return Described(job.id, job.kind, "", where)


def _sample(job: SampleJob, takes: Mapping[str, str]) -> Described:
    kept = f", {job.keep or 'all'} kept"
    judge = f" by {takes['judged']}" if "judged" in takes else ""
    right = f", right by {' and '.join(job.verify)}" if job.verify else ""
    what = f"{counted(job.draws, 'draws')} of each of {job.prompts}{right}{kept}{judge}"
    return Described(job.id, job.kind, takes.get("draws", ""), what)


def _walk(job: ScoreJob | ReferenceJob | TeacherJob, takes: Mapping[str, str]) -> Described:
    return Described(job.id, job.kind, takes.get("model", ""), job.source)


def _average(job: AverageJob, takes: Mapping[str, str]) -> Described:
    shares = [
        f"{float(Fraction(weight)):.4g} × {takes[f'of.{number}']}"
        for number, weight in enumerate(job.weights)
    ]
    return Described(job.id, job.kind, "", ", ".join(shares))


def _best(job: BestJob, takes: Mapping[str, str]) -> Described:
    more = "highest" if job.higher else "lowest"
    return Described(job.id, job.kind, ", ".join(job.of), f"the {more} {job.measure.name}")


def _evaluate(job: EvaluateJob, takes: Mapping[str, str]) -> Described:
    measures = ", ".join(measure.name for measure in job.measures)
    of = next((takes[role] for role in MEASURED if role in takes), "")
    return Described(job.id, job.kind, of, measures)


def _elsewhere(job: Any, takes: Mapping[str, str]) -> None:
    """Left out: the evaluation, gate, choice, sample or training that takes its result describes
    it."""


DESCRIPTIONS: dict[type, Callable[[Any, Mapping[str, str]], Described | None]] = {
    DatasetJob: _pause,
    WeightsJob: _weights,
    SampleJob: _sample,
    ScoreJob: _walk,
    ReferenceJob: _walk,
    TeacherJob: _walk,
    AverageJob: _average,
    BestJob: _best,
    EvaluateJob: _evaluate,
    HeldOutJob: _elsewhere,
    DrawJob: _elsewhere,
    JudgeJob: _elsewhere,
    EnsembleJob: _elsewhere,
    RolloutJob: _elsewhere,
    LikelihoodJob: _elsewhere,
}
"""Kind of job → the function that describes it."""
