"""The ranks of a pipeline that decide memory and time, as symbols of the cost model."""

from itertools import accumulate

from ...spec.record import Record
from ..families.architectures import dense_layers, further_is_dense
from ..pipelines import (
    USUAL,
    between,
    in_flight,
    layers_of_stages,
    split_of,
    stages_of_rank,
)
from ..values import ModelShape, Resources

Ends = dict[str, float]
"""`L_d`, `L_e`, `N_in`, `N_out`, `has_out`, `outs`, `alive` and `between` of a rank."""


class Ranks(Record):
    """The ranks that may be the fullest, and which of them may be the slowest."""

    ends: list[Ends]
    slow: list[int]


def pipeline_ranks(
    model: ModelShape, resources: Resources, micro_batches: int, *, output: int | None = None
) -> Ranks:
    """The ranks of a pipeline, or the only one, that may be the fullest or the slowest.

    With torchtitan's usual split, the embedding and the output count as a layer each, so the
    output's work is taken to be spread over all ranks, and the stages in the middle, which have
    the most layers, are the slowest. With another, the output's work is where the output is.

    Args:
        micro_batches: that a rank has in a step.
        output: parameters of the head, if it is not a table of the vocabulary.
    """
    table = model.vocab * model.dim
    if output is None:
        output = 0 if model.tied and resources.pipeline == 1 else table
    if resources.pipeline == 1:
        dense = dense_layers(model)
        mixed = model.layers - dense
        if further_is_dense(model):
            dense += model.mtp
        else:
            mixed += model.mtp
        only = _ends(dense, mixed, table, output, True, 1.0, 1.0)
        return Ranks(ends=[only], slow=[0])
    if split_of(resources) == USUAL and resources.schedule == "1f1b":
        return _usual(model, resources, micro_batches, table, output)
    return _exact(model, resources, micro_batches, table, output)


def _ends(
    dense: int,
    mixed: int,
    table: int,
    output: int,
    has_out: bool,
    outs: float,
    alive: float,
    apart: float = 0.0,
) -> Ends:
    return {
        "L_d": dense,
        "L_e": mixed,
        "N_in": table,
        "N_out": output,
        "has_out": int(has_out),
        "outs": outs,
        "alive": alive,
        "between": apart,
    }


def _usual(
    model: ModelShape, resources: Resources, micro_batches: int, table: int, output: int
) -> Ranks:
    """The first, a middle and the last rank."""
    pipeline, each = resources.pipeline, resources.interleave
    most = -(-(model.layers + 2) // (pipeline * each)) * each
    dense = dense_layers(model)
    found = []
    for rank, layers, n_in, n_out in (
        (0, most - 1, table, 0),
        (1, most, 0, 0),
        (pipeline - 1, most - 1, 0, output),
    ):
        of = min(layers, dense) if rank == 0 else layers if model.experts is None else 0
        alive = in_flight(resources, rank, micro_batches)
        found.append(_ends(of, layers - of, n_in, n_out, n_out > 0, 1.0, alive))
    most_layers = max(range(len(found)), key=lambda n: found[n]["L_d"] + found[n]["L_e"])
    return Ranks(ends=found, slow=[most_layers])


def _exact(
    model: ModelShape, resources: Resources, micro_batches: int, table: int, output: int
) -> Ranks:
    """The first, the second, the last and the first and the last of the fullest ranks, with their
    own layers; those without any are left out."""
    pipeline, dense = resources.pipeline, dense_layers(model)
    each = layers_of_stages(model.layers, resources)
    firsts = [0, *accumulate(each)]
    stages = [stages_of_rank(resources, rank) for rank in range(pipeline)]
    layers = [sum(each[stage] for stage in own) for own in stages]
    found = []
    fullest = [rank for rank in range(pipeline) if layers[rank] == max(layers)]
    for rank in sorted({0, 1, pipeline - 1, fullest[0], fullest[-1]}):
        if not layers[rank]:
            continue
        own = stages[rank]
        without = sum(min(max(dense - firsts[stage], 0), each[stage]) for stage in own)
        last = len(each) - 1 in own
        found.append(
            _ends(
                without,
                layers[rank] - without,
                table if 0 in own else 0,
                output if last else 0,
                last,
                float(pipeline * last),
                in_flight(resources, rank, micro_batches),
                between(resources, rank, micro_batches),
            )
        )
    return Ranks(ends=found, slow=[*range(len(found))])
