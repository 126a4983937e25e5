"""What gates and evaluations measure."""

from collections.abc import Iterator
from typing import Any

from ...spec.schema import recipe as r
from ..plan.measures import (
    AccuracyMeasure,
    Answered,
    LossMeasure,
    Measure,
    NeedleMeasure,
    RewardMeasure,
    SuiteMeasure,
    VerifiedMeasure,
)
from ..program import ScheduledStage, Segment, Trained
from .job_list import Jobs
from .verifiers import all_planned


def gate_measures(
    stage: ScheduledStage, segment: Segment, short: int, *, of_start: bool
) -> list[Measure]:
    """The distinct measures of a gate's requirements; `of_start`: those compared with the start.

    `loss(short)` is measured on the stage's sources at the length `short`, `needle` at that length
    and every doubling of it up to the segment's.

    Args:
        short: the length at which the previous stage ended or, without one, this one began.
    """
    gate = stage.spec.gate
    assert gate
    short = min(short, segment.seq_len)
    measures: dict[str, Measure] = {}
    for requirement in gate.requirements:
        if of_start and not requirement.of_start:
            continue
        if requirement.measure == "needle":
            lengths = gate.needle.lengths or _doublings(short, segment.seq_len)
            measures["needle"] = NeedleMeasure(
                name="needle",
                lengths=lengths,
                depths=gate.needle.depths,
                samples=gate.needle.samples,
                seed=0,
            )
        elif requirement.argument == "short":
            sources = [n for n, share in stage.end.data.items() if share > 0]
            measures["loss(short)"] = LossMeasure(
                name="loss(short)", data=sources, seq_len=short, tokens=r.LOSS_TOKENS
            )
        else:
            name = requirement.argument or ""
            measures[f"loss({name})"] = LossMeasure(
                name=f"loss({name})", data=[name], seq_len=segment.seq_len, tokens=r.LOSS_TOKENS
            )
    return list(measures.values())


ANSWERED_PROMPTS = 256
"""The most prompts for which an evaluation samples answers, if the spec does not say."""


def stage_measures(
    spec: r.Measuring, dialog: dict[str, Any] | None, trained: Trained, jobs: Jobs
) -> list[Measure]:
    """What a stage measures.

    Args:
        dialog: the protocol of answers that a judge or verifiers score, and of chats.
        trained: the training of the measured weights.
    """
    longest, seed = trained.last.seq_len, jobs.seed
    learns_all = getattr(trained.spec, "loss_on", None) == "all"
    measures: list[Measure] = [
        LossMeasure(
            name=f"loss({name})",
            data=[name],
            seq_len=spec.seq_len or longest,
            tokens=r.LOSS_TOKENS,
            every_token=learns_all and jobs.recipe.datasets[name].kind == "dialogs",
        )
        for name in spec.loss or []
    ]
    needle = spec.needle
    if needle:
        measures.append(
            NeedleMeasure(
                name="needle",
                lengths=needle.lengths or [longest],
                depths=needle.depths,
                samples=needle.samples,
                seed=1,
            )
        )
    if spec.accuracy:
        measures.append(AccuracyMeasure(name="accuracy", data=spec.accuracy, of=_ranked(trained)))
    if spec.judge or spec.verify:
        assert dialog
        measures += _of_answers(spec, dialog, jobs)
    for capability, tasks in (spec.suites or {}).items():
        measures.append(
            SuiteMeasure(
                name=capability, tasks=tasks, folder=spec.tasks, limit=spec.limit, seed=seed
            )
        )
    return measures


def _ranked(trained: Trained) -> Any:
    """The kind of data on which the accuracy of a reward model is measured."""
    return getattr(trained.spec, "data_kind", "preferences")


def _of_answers(spec: r.Measuring, dialog: dict[str, Any], jobs: Jobs) -> Iterator[Answered]:
    """What a judge and verifiers say about the same answers."""
    assert spec.prompts
    assert spec.max_tokens
    asked: dict[str, Any] = {
        "prompts": spec.prompts,
        "limit": spec.limit or ANSWERED_PROMPTS,
        "dialog": dialog,
        "max_tokens": spec.max_tokens,
        "temperature": spec.temperature,
        "draws": spec.draws,
        "seed": jobs.seed,
    }
    if spec.judge:
        yield RewardMeasure(name=f"reward({spec.judge})", **asked)
    for name, each in all_planned(jobs.recipe, spec.verify).items():
        yield VerifiedMeasure(name=f"accuracy({name})", verify={name: each}, **asked)


def _doublings(short: int, longest: int) -> list[int]:
    lengths = []
    while short < longest:
        lengths.append(short)
        short *= 2
    return [*lengths, longest]
