"""What a miniature has in common with its recipe: the graph, and the order of all changes."""

from itertools import groupby, pairwise
from typing import Any

from ...spec import schedule as sc
from ...spec.record import replace
from ..program import Scheduled, ScheduledStage, Stage
from .scale import averaged_from


def structure(program: Scheduled) -> dict[str, Any]:
    """The structure of a scheduled program, for comparison.

    Returns: stage → its kind and what it continues from; for a training stage also the number of
        its segments, the changes of every knob in the order of their steps (those at one step
        together), the shapes of its learning rate, its gate and its average.
    """
    return {name: _stage(stage) for name, stage in program.stages.items()}


def _stage(stage: Stage) -> dict[str, Any]:
    if not isinstance(stage, ScheduledStage):
        return {"kind": stage.spec.kind, "of": list(stage.sources)}
    gate, evaluate = stage.spec.gate, stage.spec.evaluate
    return {
        "kind": stage.spec.kind,
        "of": stage.parent,
        "segments": _cuts(stage),
        "changes": changes(stage),
        "order": {
            "seq_len": _order([length for _, _, length in stage.lengths]),
            "rates": _rates(stage),
            "batches": _order([s.end.value for s in _segments(stage.spec.batch) if _own(s)]),
            "sources": list(stage.mixture[0].weights),
        },
        "carries": stage.carries,
        "gate": gate and ([q.measure for q in gate.requirements], gate.attempts),
        "averages": (stage.spec.average is not None, stage.spec.ema is not None),
        "evaluates": evaluate and (evaluate.loss, evaluate.decides),
    }


def _rates(stage: ScheduledStage) -> list[tuple[str, int]]:
    """The shape and the direction of each piece of the rate; those that follow a batch are cut at
    its levels, of which a miniature has fewer."""
    found = [(p.shape, (p.end > p.start) - (p.end < p.start)) for p in stage.lr]
    if stage.spec.lr_scaling == "none":
        return found
    return [each for each, _ in groupby(found)]


def _cuts(stage: ScheduledStage) -> int:
    """Number of segments, not counting differences only in a pipeline's micro-batches."""
    cuts = {step for _, (step, _) in stage.checkpoints.items()}
    return 1 + sum(
        after.from_step in cuts
        or replace(after, from_step=0, to_step=0, micro_batch=0)
        != replace(before, from_step=0, to_step=0, micro_batch=0)
        for before, after in pairwise(stage.segments)
    )


def changes(stage: ScheduledStage) -> list[list[str]]:
    """The changes in a stage, in order; those at the same step are grouped."""
    at: dict[int, list[str]] = {}
    for knob, begins in sorted(stage.begins.items()):
        if knob == "parallel" and any(s.end == sc.AUTO for s in _segments(stage.spec.parallel)):
            continue  # one placement per length, but CPUs have only one
        for step in begins:
            at.setdefault(step, []).append(knob)
    for name, (step, _) in sorted(stage.checkpoints.items()):
        at.setdefault(step, []).append(f"checkpoint {name}")
    if stage.spec.average and averaged_from(stage):
        at.setdefault(averaged_from(stage), []).append("average")
    return [found for _, found in sorted(at.items())]


def _segments(schedule: sc.Schedule | None) -> tuple[sc.Segment, ...]:
    return schedule.segments if schedule else ()


def _own(segment: sc.Segment) -> bool:
    return not isinstance(segment.end, sc.Last)


def _order(values: list[Any]) -> list[int]:
    """The ranks of values: equal for lists that rise and fall alike."""
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [ranks[value] for value in values]


def difference(full: dict[str, Any], small: dict[str, Any]) -> tuple[str, str] | None:
    """The first stage in which two structures differ, and the difference; None if they agree."""
    if list(full) != list(small):
        missing = next(iter(set(full) ^ set(small)), next(iter(full)))
        return missing, "the graph of stages"
    for name, values in full.items():
        for what, value in values.items():
            if small[name].get(what) != value:
                return name, what
    return None
