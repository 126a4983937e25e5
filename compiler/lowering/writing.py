"""What jobs with generating models need: the GPUs, and the amount of text."""

from collections.abc import Sequence
from typing import Any

from ...spec.schema import recipe as r
from ..costs.generation import Draws, generation, tensor_degrees
from ..costs.hardware import gpu
from ..plan.measures import Measure, NeedleMeasure, SuiteMeasure
from ..program import ModelStage
from ..values import Architecture, ModelShape, Resources

NEEDLE = 8
"""Approximate tokens of the answer to a needle's question."""


def for_measures(
    stage: ModelStage, models: Sequence[Architecture], measures: Sequence[Measure]
) -> dict[str, Any]:
    """The fields `resources` and `generation` of a job that measures.

    Args:
        models: the measured models, all of the same shape.
    """
    longest = max(model.context for model in models)
    context, draws = 0, []
    known = True
    for each in measures:
        if isinstance(each, NeedleMeasure):
            context = max(context, *each.lengths)
            of_length = each.depths * each.samples
            draws += [Draws(of_length, length - NEEDLE, NEEDLE) for length in each.lengths]
        elif isinstance(each, SuiteMeasure):
            context, known = longest, False
    if not context:
        return {}
    every = [Draws(each.number * len(models), each.prompt, each.answer) for each in draws]
    return needs(stage, models[0], context, every if known else None)


def answers(
    dataset: r.Dataset, limit: int | None, draws: int, most: int, context: int
) -> Draws | None:
    """Answers to prompts of unknown length, which is assumed to be the longest answer's.
    None: the spec does not say how many prompts there are.

    Args:
        limit: the most prompts; None: all.
        draws: answers to each.
        most: tokens per answer.
        context: of the model that generates, in tokens.
    """
    count = prompts(dataset)
    if limit is not None:
        count = min(limit, count or limit)
    if count is None:
        return None
    answer = min(most, context - 1)
    return Draws(count * draws, min(answer, context - answer), answer)


def prompts(dataset: r.Dataset) -> int | None:
    """The number of prompts in a data set, as far as the spec says."""
    if dataset.documents is None:
        return None
    hands, first, last = dataset.deal or (1, 1, 1)
    return dataset.documents * (last - first + 1) // hands


def needs(
    stage: ModelStage, model: ModelShape, context: int, draws: Sequence[Draws] | None
) -> dict[str, Any]:
    """The fields `resources` and `generation` of a job; neither on a CPU, which uses one process.

    Args:
        stage: the stage that trained the model and on whose cluster the job runs.
        context: tokens of the longest sequence.
        draws: see `generation`.
    """
    hardware = stage.hardware
    if hardware.device == "cpu":
        return {}
    per_node = min(hardware.per_node, hardware.world_size)
    known = gpu(hardware.device)
    if known is None:
        return {"resources": _mesh(hardware.device, tensor_degrees(model, per_node)[-1], 1)}
    nodes = hardware.world_size // per_node
    found = generation(model, known, per_node=per_node, nodes=nodes, context=context, draws=draws)
    return {
        "resources": _mesh(hardware.device, found.tensor, found.pipeline),
        "generation": found,
    }


def _mesh(device: str, tensor: int, pipeline: int) -> Resources:
    return Resources(
        world_size=tensor * pipeline,
        device=device,
        replicate=1,
        shard=1,
        tensor=tensor,
        context=1,
        pipeline=pipeline,
        interleave=1,
        expert=1,
        per_node=tensor,
    )
