"""What jobs need whose models write text: the GPUs, and how much is drawn."""

from collections.abc import Sequence
from typing import Any

from ...spec.schema import recipe as r
from ..costs.generation import Draws, generation, tensor_degrees
from ..costs.hardware import gpu
from ..plan.measures import Measure, NeedleMeasure, SuiteMeasure
from ..program import ModelStage
from ..values import Architecture, ModelShape, Resources

NEEDLE = 8
"""Tokens of the answer to a needle's question, about."""


def for_measures(
    stage: ModelStage, models: Sequence[Architecture], measures: Sequence[Measure]
) -> dict[str, Any]:
    """What a job that measures has of `resources` and `generation`.

    Args:
        models: those that are measured, of one shape.
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


def answers(count: int, most: int, context: int) -> Draws:
    """Answers to prompts whose lengths nobody knows: taken to be as long as the answers may be."""
    answer = min(most, context - 1)
    return Draws(count, min(answer, context - answer), answer)


def prompts(dataset: r.Dataset) -> int | None:
    """How many prompts a data set has, as far as the spec says."""
    if dataset.documents is None:
        return None
    hands, first, last = dataset.deal or (1, 1, 1)
    return dataset.documents * (last - first + 1) // hands


def needs(
    stage: ModelStage, model: ModelShape, context: int, draws: Sequence[Draws] | None
) -> dict[str, Any]:
    """`resources` and `generation` of a job; neither on a CPU, where one process does it.

    Args:
        stage: that trained the model, whose cluster it runs on.
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
