"""Advice on what the profiler records."""

from collections.abc import Iterator

from ...spec.quantity import counted
from ..program import Scheduled, ScheduledStage
from . import Found, rule

MOST_STEPS = 20
"""A step of a GPU is 10^5 events or more, and viewers of traces hold only so many."""
MOST_FILES = 128
"""Steps times ranks: more than one can look at, on a disk that the checkpoints need."""


@rule("W673")
def much_profiled(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    asked = stage.spec.profile
    if asked is None:
        return
    begin, end = asked.steps[0], asked.steps[-1] + 1
    steps = end - begin
    inside = [s for s in stage.segments if s.from_step < end and s.to_step > begin]
    ranks = max(s.resources.world_size for s in inside) if asked.ranks == "all" else 1
    if steps > MOST_STEPS:
        yield Found(
            f"the profile has {counted(steps, 'steps')}, each with every call of an operator",
            asked.at("steps"),
            f"a few steps show the same: `steps = [{begin}..{begin + 2}]`",
        )
    elif steps * ranks > MOST_FILES:
        yield Found(
            f"{counted(ranks, 'ranks')} write the profile of {counted(steps, 'steps')} each",
            asked.at("ranks"),
            "leave out `ranks`: rank 0 then records alone",
        )


@rule("W674")
def no_memory_to_record(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    asked = stage.spec.profile
    if asked is not None and asked.memory and stage.hardware.device == "cpu":
        yield Found(
            "`memory` records the memory of GPUs, and this stage runs on CPUs",
            asked.at("memory"),
            "remove `memory`",
        )
