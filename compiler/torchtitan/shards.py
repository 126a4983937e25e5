"""A rank's part of a model: the layers of its pipeline stage, and its shard of every weight."""

from collections.abc import Iterator
from math import prod

from ..families import FAMILIES
from ..families.architectures import dense_layers, further_is_dense, mixing
from ..families.weights import Weight, further_weights
from ..pipelines import Split, first_layer, layers_of_stage, split_of, stages_of_rank
from ..placement import cut_inside
from ..values import ModelShape, Resources


def local_parameters(
    model: ModelShape, resources: Resources, stage: int, *, score: bool = False
) -> int:
    """Parameters that the first rank of a pipeline stage holds.

    Tensor parallelism splits a weight along one dimension, and FSDP splits the rows of the rest
    among `shard` × `context` ranks. Experts are distributed over the ranks of expert parallelism,
    if any, and the remaining `shard` × `context` × `tensor` ranks of each split them with FSDP, by
    their hidden dimension if there are more ranks than experts (torchtitan 0.3,
    `distributed/fsdp.py`). With uneven splits, the first rank has the most.

    Args:
        stage: the rank of the pipeline, which is the first of its stages, counted from 0.
        score: whether the model has a head with one output, as those that score have; tensor
            parallelism does not split it.
    """
    ranks = resources.shard * resources.context
    apart = resources.expert > 1
    inside = model.experts and cut_inside(model.experts.count, resources)
    total = 0
    stages = resources.pipeline * resources.interleave
    for of in (
        weight
        for part in stages_of_rank(resources, stage)
        for weight in _weights(model, stages, part, split_of(resources), score)
    ):
        sides, over, along = list(of.shape), ranks, 0
        if of.part == "experts" and apart:
            over = ranks * resources.tensor // resources.expert
            sides[0] //= resources.expert
        elif of.cut is not None:
            sides[of.cut] = -(-sides[of.cut] // resources.tensor)
        if of.part == "experts" and inside:
            along = 1
        sides[along] = -(-sides[along] // over)
        total += prod(sides)
    return total


def _weights(
    model: ModelShape, stages: int, stage: int, split: Split, score: bool
) -> Iterator[Weight]:
    dim, family = model.dim, FAMILIES[model.family]
    if stage == 0:
        yield Weight((model.vocab, dim), 0)
    first = first_layer(model.layers, stages, stage, split)
    for layer in range(first, first + layers_of_stage(model.layers, stages, stage, split)):
        if layer == 0:
            yield from family.start(model)
        yield from family.norms(model)
        yield from mixing(model, layer)
        if layer < dense_layers(model):
            yield from family.feed_forward(model)
        else:
            yield from family.mixture(model)
    for _ in range(0 if score else model.mtp):  # there is no pipeline then
        yield from family.norms(model)
        yield from family.attention(model)
        yield from family.feed_forward(model) if further_is_dense(model) else family.mixture(model)
        yield from further_weights(model)
    if stage == stages - 1:
        yield from family.last_norm(model)
        if score:
            yield Weight((1, dim), None)
            return
        if not model.tied:
            yield Weight((model.vocab, dim), 0)
        yield from family.output(model)
