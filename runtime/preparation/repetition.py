"""How often stages read their data: known once the data exist."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...compiler.as_written import measured
from ...compiler.plan.plan import Distill, Kto, NextToken, Plan, Prm, Sft, TrainJob
from ...compiler.schedule.timeline import Timeline
from ..data.records.shards import SUMMARY as RECORDS
from ..data.tokens.shards import SUMMARY as SHARDS
from ..run_folder.outcomes import results
from ..run_folder.store import Store

MOST = {"documents": 4, "dialogs": 5, "preferences": 4, "ratings": 4, "solutions": 4}
"""Passes above which a run warns. Documents: repeating them this often is nearly as good as new
ones (arXiv:2305.16264, §5). Dialogs and the others: published
recipes use 1 to 3."""
FORMS = {
    NextToken: "documents",
    Sft: "dialogs",
    Distill: "dialogs",
    Kto: "ratings",
    Prm: "solutions",
}
RECORDED = ("preferences", "ratings", "solutions")
"""Of these, records are counted, and of others tokens, unless batches count dialogs."""
ALLOWED = ("W621", "W625")
"""Findings about passes; a recipe that silences one does so on purpose."""


@dataclass(frozen=True)
class Reading:
    """How much a stage reads of a source.

    Attributes:
        form: "documents", "dialogs", "preferences", "ratings" or "solutions".
        held: how much the source's train split holds: tokens, or records of what batches count.
        unit: of that, in the plural.
        times: passes over them by the end of the stage: of documents, including earlier stages; of
            records, only its own.
    """

    stage: str
    source: str
    form: str
    held: int
    times: float
    unit: str

    @property
    def much(self) -> bool:
        """Whether it is read more often than is known to help."""
        return self.times > MOST[self.form]

    def __str__(self) -> str:
        read = f"{self.source} {measured(self.times)} times"
        if self.times <= 1:
            read = f"{measured(self.times * 100)}% of {self.source}"
        return f"{self.stage} reads {read} ({self.held:,} {self.unit})"


def readings(plan: Plan, made: Mapping[str, Path]) -> list[Reading]:
    """The readings of a plan's stages for the data sets that exist, in the plan's order.

    Args:
        made: key of a data set's job in the plan → folder of its result.
    """
    stages = by_stage(plan).items()
    return [each for name, jobs in stages for each in of_stage(name, jobs, made, rows(plan, name))]


def rows(plan: Plan, stage: str) -> dict[str, float]:
    """Source → tokens of the rows into which an epoch of its dialogs is packed, as far as the plan
    counts them: rows are not quite full."""
    return {
        each.dataset: each.seq_len * sum(each.numbers) / len(each.numbers)
        for each in plan.counts
        if each.stage == stage and each.unit == "rows"
    }


def by_stage(plan: Plan) -> dict[str, list[TrainJob]]:
    """Stage → the jobs that train it unconditionally."""
    stages: dict[str, list[TrainJob]] = {}
    for job in plan.trained():
        stages.setdefault(job.stage or job.id, []).append(job)
    return stages


def readings_in(plan: Plan, store: Store) -> list[Reading]:
    """The readings of a plan's stages for the data sets in a run folder.

    Raises: RunError: a result is damaged.
    """
    keys = {job.id: job.key for job in plan.jobs}
    return readings(plan, {keys[job]: folder for job, folder in results(plan, store).items()})


def of_stage(
    name: str, jobs: list[TrainJob], made: Mapping[str, Path], rows: Mapping[str, float]
) -> Iterator[Reading]:
    """The readings of a stage's jobs for the data sets that exist; `made` as in `readings`.

    Answers that the stage itself has written are left out: every turn has its own, and learns from
    each once.

    Args:
        rows: source → tokens of an epoch's rows of packed dialogs, where they are counted.
    """
    for source in dict.fromkeys(source for job in jobs for source in job.data if source != name):
        reading = [job for job in jobs if source in job.data]
        folder = made.get(reading[0].inputs[f"data:{source}"])
        if folder is None:
            continue
        objective = reading[0].objective
        form = FORMS.get(type(objective), "preferences")
        records = form in RECORDED or reading[0].rows == form
        held = _held(folder, form, records=records)
        if not held:
            continue
        drawn = [(job, _sequences(job, source)) for job in reading]
        if form == "documents":
            read = max(job.data[source].first_token + n * job.seq_len for job, n in drawn)
        elif records:
            read = sum(n for _, n in drawn)
        else:
            read = sum(n * job.seq_len for job, n in drawn)
        unit = form if records else "tokens"
        yield Reading(name, source, form, held, read / rows.get(source, held), unit)


def _sequences(job: TrainJob, source: str) -> int:
    """Sequences, rows or preferences that a job draws from a source."""
    return Timeline.of(job).drawn_before(job.first_step + job.steps).get(source, 0)


def _held(folder: Path, form: str, *, records: bool) -> int:
    """Tokens or records of the train split of a data set."""
    summary = folder / (SHARDS if form == "documents" else RECORDS)
    split = json.loads(summary.read_text())["splits"]["train"]
    return split["documents"] if records else split["tokens"]


def advice(reading: Reading) -> str:
    """Why this many passes matter, and what to do."""
    return (
        f"more than {MOST[reading.form]} passes rarely help: add data, train for less, or lower "
        "its share"
    )
