"""What a rank holds of a model: layers of its pipeline stage, its shard of every weight."""

from collections.abc import Iterator

from .values import Architecture, Resources

COUNTED = ("llama3",)
"""Families whose weights are counted one by one here."""


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
    `shard` × `context` ranks. What does not divide evenly leaves the first rank the most.

    Args:
        stage: the pipeline stage, counted from 0.
    """
    if model.family not in COUNTED:
        return None
    ranks = resources.shard * resources.context
    total = 0
    for rows, columns, cut in _weights(model, resources.pipeline, stage):
        if cut == "rows":
            rows = -(-rows // resources.tensor)
        elif cut == "columns":
            columns = -(-columns // resources.tensor)
        total += -(-rows // ranks) * columns
    return total


def _weights(model: Architecture, pipeline: int, stage: int) -> Iterator[tuple[int, int, str]]:
    """Rows, columns and the side that tensor parallelism cuts, of every weight of a stage."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    if stage == 0:
        yield model.vocab, model.dim, "rows"
    for _ in range(layers_of_stage(model.layers, pipeline, stage)):
        yield model.dim, 1, ""
        yield model.dim, 1, ""
        yield queries, model.dim, "rows"
        yield keys, model.dim, "rows"
        yield keys, model.dim, "rows"
        yield model.dim, queries, "columns"
        yield model.ffn, model.dim, "rows"
        yield model.ffn, model.dim, "rows"
        yield model.dim, model.ffn, "columns"
    if stage == pipeline - 1:
        yield model.dim, 1, ""
        if not model.tied:
            yield model.vocab, model.dim, "rows"
