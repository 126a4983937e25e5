"""What train jobs measure while they train."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..costs.evaluations import evaluations
from ..plan.evaluations import Choice, Evaluation, role
from ..plan.measures import LossMeasure
from ..program import ScheduledStage, Segment
from .job_list import Jobs

Give = Callable[[str], str]
"""Adds the job that makes something of a source; returns its key."""


class Watched(NamedTuple):
    """What a train job measures, as its fields, and what it needs for that."""

    content: dict[str, Any]
    inputs: dict[str, str]


def watched(
    stage: ScheduledStage,
    segment: Segment,
    jobs: Jobs,
    *,
    learns_all: bool,
    data: Give,
    reference: Give | None,
) -> Watched:
    """The evaluations in a segment of a stage.

    Args:
        learns_all: whether the stage learns every token of its dialogs.
        data: adds the job that makes a data set.
        reference: adds the job that computes a reference's log-probabilities of the held-out
            preferences of a data set; None: the stage has no reference.
    """
    asked = stage.spec.evaluate
    if asked is None:
        return Watched({}, {})
    kinds = {name: jobs.recipe.datasets[name].kind for name in asked.loss}
    measures = [
        LossMeasure(
            name=f"loss({name})",
            data=[name],
            seq_len=segment.seq_len,
            tokens=asked.tokens,
            every_token=learns_all and kind == "dialogs",
        )
        for name, kind in kinds.items()
    ]
    choice = None
    if asked.decides:
        by = asked.by or asked.loss[0]
        choice = Choice(
            measure=next(each for each in measures if each.data == [by]),
            every=asked.every,
            patience=asked.patience,
            best=asked.keep == "best",
        )
    inputs = {}
    for measure in measures:
        (name,) = measure.data
        inputs[role(measure, choice, "data")] = data(name)
        if reference and kinds[name] == "preferences":
            inputs[role(measure, choice, "reference")] = reference(name)
    found = evaluations(stage, segment)
    evaluation = Evaluation(
        every=asked.every, times=found.times, measures=measures, reading=found.each
    )
    return Watched({"evaluation": evaluation, "choice": choice}, inputs)
