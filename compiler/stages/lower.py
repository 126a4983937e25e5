"""Lowers the program to jobs, with complete torchtitan configurations and content keys."""

from collections.abc import Sequence
from typing import Any

from ..lowering.lowering import Lowering
from ..plan.plan import DatasetJob, TokenizerJob
from ..program import Lowered, Scheduled
from . import KINDS
from .kind import TrainingKind


def lower(program: Scheduled) -> Lowered:
    """The program with its jobs, in an order in which they can run, and its results."""
    ways = {spec: kind.way for spec, kind in KINDS.items() if isinstance(kind, TrainingKind)}
    to = Lowering(program, ways)
    for stage in program.stages.values():
        KINDS[type(stage.spec)].lower(stage, to)
    for name, stage in program.stages.items():
        said = getattr(stage.spec, "export", None)
        if said in ("bf16", "fp32") or (said is None and name in to.unused):
            to.outputs[name] = to.models.export(name, name)
    return Lowered(
        recipe=program.recipe,
        ranks=program.ranks,
        folders=program.folders,
        folder=program.folder,
        stages=program.stages,
        jobs=_data_first(to.jobs.jobs),
        outputs=to.outputs,
    )


def _data_first(jobs: Sequence[Any]) -> list[Any]:
    """The jobs, those first that need only files: what is wrong with the last stage's data is found
    before the first stage trains, and no nodes wait in between while data are tokenized."""
    made: set[str] = set()
    first: list[Any] = []
    for job in jobs:
        if isinstance(job, TokenizerJob | DatasetJob) and made.issuperset(job.inputs.values()):
            made.add(job.key)
            first.append(job)
    return [*first, *(job for job in jobs if job.key not in made)]
