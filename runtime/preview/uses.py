"""Which sources a preview shows, and how a plan's stages see them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from ...compiler.ids import DataId, StageId
from ...compiler.plan.measures import LossMeasure
from ...compiler.plan.plan import (
    BestJob,
    DatasetJob,
    DrawJob,
    EvaluateJob,
    FilterJob,
    HeldOutJob,
    Objective,
    Plan,
    ScoreJob,
    TokenizerJob,
)
from ..errors import RunError

Purpose = Literal["trains on", "draws answers to", "measures", "scores"]


class NoTarget(RunError):
    """There is no such stage or data set, or it has no data (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True)
class Use:
    """How a stage sees a source.

    Attributes:
        stage: the stage's name.
        purpose: what the stage does with the source.
        source: the data set's name.
        data: the job that makes it.
        filtered: the job that filters its documents by their scores.
        tokenizer: the job that makes the tokenizer.
        objective: what is learned; None if nothing is.
        seq_len: tokens per row; None if there are no rows.
        later: the row lengths of the stage's later segments.
        seed: the seed for shuffling rows and records.
        first_token: where in the shuffled documents the stage begins.
        rows: how many rows of it the stage reads; None for any number.
        vocab: the model's vocabulary size; None if there is no model.
        also: other stages that see the source in the same way.
    """

    stage: str
    purpose: Purpose
    source: str
    data: DatasetJob
    filtered: FilterJob | None
    tokenizer: TokenizerJob | None
    objective: Objective | None = None
    seq_len: int | None = None
    later: tuple[int, ...] = ()
    seed: int = 0
    first_token: int = 0
    rows: int | None = None
    vocab: int | None = None
    also: tuple[str, ...] = ()

    def same(self, other: "Use") -> bool:
        """Whether both look the same, wherever they begin in the documents."""
        return (self.data.key, self.filtered, self.objective, self.purpose) == (
            other.data.key,
            other.filtered,
            other.objective,
            other.purpose,
        ) and (self.seq_len == other.seq_len or self.data.form != "documents")


def uses(plan: Plan, target: str | None) -> list[Use]:
    """What to show: one stage's sources, one data set, or the sources of all stages that train.

    Data sets and stages of rounds also have short names, which refer to the first round.

    Raises: NoTarget.
    """
    every = list(_every(plan))
    if target is None:
        return _distinct([use for use in every if use.purpose == "trains on"])
    stages = {use.stage: [u for u in every if u.stage == use.stage] for use in every}
    sources = {use.source: use for use in reversed(every)}
    for names in (stages, _short(stages, lambda name: StageId.parse(name).name)):
        if target in names:
            return _distinct(names[target])
    for found in (sources, _short(sources, lambda name: DataId.parse(name).name)):
        if target in found:
            return [found[target]]
    raise _no_target(plan, target, list(stages), list(sources))


def _short(names: dict, short) -> dict:
    """The same by shorter names; the first of each counts."""
    return {short(name): found for name, found in reversed(names.items())}


def _no_target(plan: Plan, target: str, stages: list[str], sources: list[str]) -> NoTarget:
    readers = f"stages with data: {', '.join(stages) or 'none'}; data sets: {', '.join(sources)}"
    if target in plan.stages:
        kind = plan.stages[target].kind
        return NoTarget(f"the stage `{target}` ({kind}) reads no data", readers)
    for job in plan.jobs:
        if isinstance(job, TokenizerJob) and target in job.datasets:
            return NoTarget(
                f"no stage reads the data set `{target}`: only the tokenizer is trained on it",
                readers,
            )
    if f"dataset.{target}" in plan.values:
        return NoTarget(f"no stage reads the data set `{target}`", readers)
    near = get_close_matches(target, [*plan.stages, *sources], 1)
    meant = f"; did you mean `{near[0]}`?" if near else ""
    return NoTarget(f"there is no stage or data set `{target}`{meant}", readers)


def _distinct(found: list[Use]) -> list[Use]:
    """Each way of seeing a source once, with the other stages that share it."""
    kept: list[Use] = []
    for use in found:
        place = next((i for i, other in enumerate(kept) if other.same(use)), None)
        if place is None:
            kept.append(use)
        elif use.stage not in (kept[place].stage, *kept[place].also):
            kept[place] = replace(kept[place], also=(*kept[place].also, use.stage))
    return kept


def _every(plan: Plan) -> Iterator[Use]:
    """All uses of sources, those for training first, in the order of the jobs."""
    yield from _trained(plan)
    by_key = {job.key: job for job in plan.jobs}
    reports = [job for job in plan.jobs if isinstance(job, EvaluateJob | BestJob)]
    taken = {key for job in reports for key in job.inputs.values()}
    for job in plan.jobs:
        if type(job) in _READ:
            purpose, read = _READ[type(job)]
            if job.key in taken:
                purpose = "measures"
            elif purpose == "measures":  # what a gate measures belongs to its stage
                continue
            for role, source, more in read(job):
                seed = plan.seed if more else 0
                made = _made(by_key, job.inputs[role])
                yield Use(job.stage or job.id, purpose, source, *made, seed=seed, **more)


def _trained(plan: Plan) -> Iterator[Use]:
    by_key = {job.key: job for job in plan.jobs}
    jobs = plan.trained()
    for stage in dict.fromkeys(job.stage for job in jobs):
        own = [job for job in jobs if job.stage == stage]
        for source in dict.fromkeys(name for job in own for name in job.data if name != stage):
            reading = [job for job in own if source in job.data]
            first = reading[0]
            lengths = dict.fromkeys(job.seq_len for job in reading)
            window = first.data[source]
            yield Use(
                stage or first.id,
                "trains on",
                source,
                *_made(by_key, first.inputs[f"data:{source}"]),
                objective=first.objective,
                seq_len=first.seq_len,
                later=tuple(lengths)[1:],
                seed=first.seed,
                first_token=window.first_token,
                rows=window.sequences,
                vocab=first.model.vocab,
            )


Read = Iterator[tuple[str, str, dict[str, Any]]]
"""Role of the input, source, and `seq_len` if rows are shuffled (None if there are no rows)."""


def _asked(job: DrawJob) -> Read:
    yield "prompts", job.prompts, {} if job.limit is None else {"seq_len": None}


def _scored(job: ScoreJob) -> Read:
    yield f"data:{job.source}", job.source, {"seq_len": job.seq_len}


def _held_out(job: HeldOutJob) -> Read:
    for measure in job.measures:
        length = measure.seq_len if isinstance(measure, LossMeasure) else None
        for name in measure.data:
            yield f"data:{name}", name, {"seq_len": length}


_READ: dict[type, tuple[Purpose, Callable[[Any], Read]]] = {
    DrawJob: ("draws answers to", _asked),
    ScoreJob: ("scores", _scored),
    HeldOutJob: ("measures", _held_out),
}
"""Kinds of jobs that read sources without training → their purpose, and what they read."""


def _made(by_key: dict, key: str) -> tuple[DatasetJob, FilterJob | None, TokenizerJob | None]:
    """The jobs behind a source: its data set, its filter and its tokenizer."""
    job = by_key[key]
    filtered = job if isinstance(job, FilterJob) else None
    data = by_key[filtered.inputs["data"]] if filtered else job
    assert isinstance(data, DatasetJob)
    return data, filtered, by_key.get(data.inputs.get("tokenizer", ""))
