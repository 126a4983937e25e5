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
    stage: ModelStage,
    model: ModelShape,
    context: int,
    draws: Sequence[Draws] | None,
    *,
    spread: bool = False,
    turns: bool = False,
) -> dict[str, Any]:
    """The fields `resources` and `generation` of a job; neither where one process on a CPU writes.

    Args:
        stage: the stage that trained the model and on whose cluster the job runs.
        context: tokens of the longest sequence.
        draws, spread, turns: see `generation`.
    """
    hardware = stage.hardware
    device, per_node = hardware.device, min(hardware.per_node, hardware.world_size)
    nodes = hardware.world_size // per_node
    if device == "cpu":
        several = spread and hardware.world_size > 1
        return (
            {"resources": mesh(device, replicas=nodes * per_node, node=per_node)} if several else {}
        )
    known = gpu(device)
    if known is None:
        tensor = tensor_degrees(model, per_node)[-1]
        of_node = per_node // tensor if spread else 1
        replicas = of_node * nodes if spread else 1
        return {"resources": mesh(device, tensor, replicas=replicas, node=of_node * tensor)}
    on = {"per_node": per_node, "nodes": nodes, "spread": spread, "turns": turns}
    found = generation(model, known, **on, context=context, draws=draws)
    whole = found.pipeline == 1
    node = min(found.replicas, per_node // found.tensor) * found.tensor if whole else found.tensor
    resources = mesh(device, found.tensor, found.pipeline, found.replicas, node)
    return {"resources": resources, "generation": found}


def mesh(
    device: str, tensor: int = 1, pipeline: int = 1, replicas: int = 1, node: int | None = None
) -> Resources:
    """The ranks of models that write.

    Args:
        node: ranks of a node, if it has not just those of one replica.
    """
    return Resources(
        world_size=tensor * pipeline * replicas,
        device=device,
        replicate=replicas,
        shard=1,
        tensor=tensor,
        context=1,
        pipeline=pipeline,
        interleave=1,
        expert=1,
        per_node=node or tensor,
    )
