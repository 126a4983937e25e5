"""What a rank holds of a model: layers of its pipeline stage, its shard of every weight."""

from collections.abc import Iterator
from math import prod

from .architectures import dense_layers
from .values import Architecture, Resources

COUNTED = ("llama3", "qwen3", "deepseek_v3")
"""Families whose weights are counted one by one here."""


def first_layer(layers: int, pipeline: int, stage: int) -> int:
    """The number of the first transformer layer of a pipeline stage, both counted from 0."""
    return sum(layers_of_stage(layers, pipeline, before) for before in range(stage))


def layers_of_stage(layers: int, pipeline: int, stage: int) -> int:
    """Transformer layers of a pipeline stage, counted from 0.

    The embedding and the output count as a layer each; what does not divide evenly goes to the
    first stages (torchtitan 0.3, `distributed/pipeline_parallel.py`).
    """
    if pipeline == 1:
        return layers
    each, more = divmod(layers + 2, pipeline)
    return each + (stage < more) - (stage in (0, pipeline - 1))


def local_parameters(model: Architecture, resources: Resources, stage: int) -> int | None:
    """Parameters that the first rank of a pipeline stage holds; None where that is not known here.

    Tensor parallelism cuts a weight along one side, and FSDP cuts the rows of what is left among
    `shard` × `context` ranks. Experts go to the ranks of expert parallelism, if there is any, and
    the `shard` × `context` × `tensor` ranks that are left for each cut them by FSDP, by their
    hidden side where there are more ranks than experts (torchtitan 0.3, `distributed/fsdp.py`).
    What does not divide evenly leaves the first rank the most.

    Args:
        stage: the pipeline stage, counted from 0; of an interleaved pipeline the first of those
            that the rank has.
    """
    if model.family not in COUNTED:
        return None
    ranks = resources.shard * resources.context
    apart = resources.expert > 1
    total = 0
    stages = resources.pipeline * resources.interleave
    for shape, cut in (
        weight
        for part in range(stage, stages, resources.pipeline)
        for weight in _weights(model, stages, part)
    ):
        sides, over, along = list(shape), ranks, 0
        expert = len(shape) == 3
        if expert and apart:
            over = ranks * resources.tensor // resources.expert
            sides[0] //= resources.expert
        elif cut is not None:
            sides[cut] = -(-sides[cut] // resources.tensor)
        if expert and over * (resources.expert if apart else 1) > shape[0]:
            along = 1
        sides[along] = -(-sides[along] // over)
        total += prod(sides)
    return total


def _weights(
    model: Architecture, pipeline: int, stage: int
) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """The shape of every weight of a stage, and the axis that tensor parallelism cuts."""
    dim = model.dim
    if stage == 0:
        yield (model.vocab, dim), 0
    first = first_layer(model.layers, pipeline, stage)
    for layer in range(first, first + layers_of_stage(model.layers, pipeline, stage)):
        yield (dim,), None
        yield (dim,), None
        yield from _attention(model)
        if layer < dense_layers(model):
            yield from _feed_forward(dim, model.ffn)
        else:
            yield from _experts(model)
    if stage == pipeline - 1:
        yield (dim,), None
        if not model.tied:
            yield (model.vocab, dim), 0


def _attention(model: Architecture) -> Iterator[tuple[tuple[int, ...], int | None]]:
    dim, heads, latent = model.dim, model.heads, model.latent
    if latent is None:
        queries, keys = heads * model.head_dim, model.kv_heads * model.head_dim
        yield (queries, dim), 0
        yield (keys, dim), 0
        yield (keys, dim), 0
        yield (dim, queries), 1
        if model.qk_norm:
            yield (model.head_dim,), None
            yield (model.head_dim,), None
        return
    queries = heads * (latent.plain + latent.rotary)
    if latent.queries:
        yield (latent.queries, dim), None
        yield (latent.queries,), None
        yield (queries, latent.queries), 0
    else:
        yield (queries, dim), 0
    yield (latent.keys + latent.rotary, dim), None
    yield (latent.keys,), None
    yield (heads * (latent.plain + latent.values), latent.keys), 0
    yield (dim, heads * latent.values), 1


def _feed_forward(dim: int, ffn: int) -> Iterator[tuple[tuple[int, ...], int | None]]:
    yield (ffn, dim), 0
    yield (ffn, dim), 0
    yield (dim, ffn), 1


def _experts(model: Architecture) -> Iterator[tuple[tuple[int, ...], int | None]]:
    experts, dim = model.experts, model.dim
    assert experts
    yield (experts.count, dim), None
    if experts.shared:
        yield from _feed_forward(dim, experts.ffn * experts.shared)
    yield (experts.count, experts.ffn, dim), 1
    yield (experts.count, experts.ffn, dim), 1
    yield (experts.count, dim, experts.ffn), 2
