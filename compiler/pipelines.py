"""Pipelines: which layers a stage has, which stages a rank, and what a schedule asks for.

All of it is as torchtitan 0.3 (`distributed/pipeline_parallel.py`) and torch 2.14
(`distributed/pipelining/schedules.py`) do it; `tests/integration/test_pipelines.py` compares.
"""

from typing import Any, Literal

from ..spec.record import Record
from .program import ModelStage
from .values import Resources


class Pipelining(Record):
    """What a schedule of a pipeline asks for.

    Attributes:
        titan: its name in torch, with one stage a rank; "" if there is none.
        several: its name with several; "" if there is none.
        two: a rank has exactly two stages, the last rank those in the middle (a V).
        rounds: micro-batches run in equal rounds of at least as many as there are ranks.
        full: whether there are at least as many micro-batches as stages.
        split: the gradients of inputs and those of weights are computed apart.
        source: of the schedule.
    """

    titan: str = ""
    several: str = ""
    two: bool = False
    rounds: bool = False
    full: bool = False
    split: bool = False
    source: str


DEFAULT = "1f1b"
PIPELINES: dict[str, Pipelining] = {
    DEFAULT: Pipelining(
        titan="1F1B", several="Interleaved1F1B", rounds=True, source="arXiv:2104.04473 §2.2"
    ),
    "gpipe": Pipelining(titan="GPipe", source="arXiv:1811.06965"),
    "looped_bfs": Pipelining(several="LoopedBFS", source="arXiv:2211.05953"),
    "zero_bubble": Pipelining(
        several="InterleavedZeroBubble", rounds=True, split=True, source="arXiv:2401.10241 §2"
    ),
    "zero_bubble_v": Pipelining(
        several="ZBVZeroBubble", two=True, split=True, source="arXiv:2401.10241 §6"
    ),
    "dualpipe_v": Pipelining(
        several="DualPipeV", two=True, full=True, split=True, source="arXiv:2412.19437 §3.2.1"
    ),
}
"""Schedules by their names in specs."""

Split = tuple[int, int]
"""Layers that the first and the last stage have less, for the embedding and the output."""
EVENLY: Split = (0, 0)
USUAL: Split = (1, 1)
"""torchtitan's default: the embedding and the output count as a layer each."""

LESS_LAYERS = {
    "first_less": "pipeline_parallel_first_stage_less_layers",
    "last_less": "pipeline_parallel_last_stage_less_layers",
}
"""How a placement names a split → torchtitan's fields."""


def pipelining(resources: Resources) -> Pipelining:
    """What the schedule of a mesh asks for."""
    return PIPELINES[resources.schedule]


def split_of(resources: Resources) -> Split:
    """How the layers of a mesh's pipeline are split."""
    return resources.first_less, resources.last_less


def told(stage: ModelStage, section: str) -> dict[str, Any]:
    """The fields of a section that a stage's or a cluster's `torchtitan` sets."""
    found: dict[str, Any] = {}
    for group in (stage.hardware.torchtitan, stage.settings["torchtitan"]):
        found |= group.given().get(section, {}) if group else {}
    return found


def told_split(stage: ModelStage) -> dict[str, int]:
    """How `torchtitan` splits a pipeline, in a placement's words."""
    fields = told(stage, "parallelism")
    return {name: fields[of] for name, of in LESS_LAYERS.items() if of in fields}


def stages_of_rank(resources: Resources, rank: int) -> list[int]:
    """The stages of a rank of the pipeline, both counted from 0: every `pipeline`-th, or in a V one
    from either end (torchtitan, `_get_pp_rank_to_stage_indices_mapping`)."""
    stages = resources.pipeline * resources.interleave
    if pipelining(resources).two:
        return [rank, stages - 1 - rank]
    return list(range(rank, stages, resources.pipeline))


def layers_of_stage(layers: int, stages: int, stage: int, split: Split = USUAL) -> int:
    """Transformer layers of a pipeline stage, counted from 0.

    The embedding and the output count as `split` layers; the remainder goes to the first stages
    (torchtitan, `_generate_llm_fqn_per_model_part`).
    """
    if stages == 1:
        return layers
    first, last = split
    each, more = divmod(layers + first + last, stages)
    own = each + (stage < more)
    return own - (first if stage == 0 else last if stage == stages - 1 else 0)


def first_layer(layers: int, stages: int, stage: int, split: Split = USUAL) -> int:
    """The number of the first transformer layer of a pipeline stage, both counted from 0."""
    return sum(layers_of_stage(layers, stages, before, split) for before in range(stage))


def layers_of_stages(layers: int, resources: Resources) -> list[int]:
    """Transformer layers of each stage of a mesh's pipeline, in the model's order."""
    stages, split = resources.pipeline * resources.interleave, split_of(resources)
    return [layers_of_stage(layers, stages, stage, split) for stage in range(stages)]


def layers_of_rank(layers: int, resources: Resources, rank: int) -> int:
    """Transformer layers of all stages of a rank of the pipeline."""
    found = layers_of_stages(layers, resources)
    return sum(found[stage] for stage in stages_of_rank(resources, rank))


def layers_per_stage(layers: int, resources: Resources) -> int | None:
    """torchtitan's `pipeline_parallel_layers_per_stage` for a mesh; None where it needs none, since
    one stage a rank, or two under a schedule of several, are what it makes by itself."""
    if resources.interleave == 1 or (resources.schedule != DEFAULT and resources.interleave == 2):
        return None
    return fullest(layers, resources.pipeline, resources.interleave, split_of(resources))


def fullest(layers: int, pipeline: int, interleave: int, split: Split = USUAL) -> int | None:
    """Layers of an interleaved pipeline's fullest stage; None if that many stages are impossible.

    The embedding and the output count as `split` layers, and this number determines how many stages
    there are (torchtitan, `pipeline_parallel_layers_per_stage`).
    """
    stages = pipeline * interleave
    each = -(-(layers + sum(split)) // stages)
    return each if -(-(layers + sum(split)) // each) == stages else None


def torch_name(resources: Resources, micro_batches: int) -> str:
    """The schedule's name in torch.

    Args:
        micro_batches: of a rank, each of one sequence.
    """
    of = pipelining(resources)
    if resources.interleave > 1:
        return of.several
    # With fewer sequences than stages, 1F1B runs all forward passes first, like GPipe, but torch's
    # 1F1B rejects such batches.
    return "GPipe" if resources.pipeline > micro_batches else of.titan


def in_flight(resources: Resources, rank: int, micro_batches: int) -> float:
    """Micro-batches of which a rank holds the activations of all its layers at once, at the most.

    Those that have not had their whole backward pass. Interleaved 1F1B runs a round of
    micro-batches forward through all stages of a rank but the last, and through the last as often
    as one needs to reach the end and return. The schedules that compute the gradients of weights
    apart hold one per rank (arXiv:2401.10241 Table 1), and DualPipeV half a micro-batch more
    (arXiv:2412.19437 Table 2). A test counts them in the orders that torch makes.
    """
    pipeline, each = resources.pipeline, resources.interleave
    match resources.schedule:
        case "gpipe" | "looped_bfs":
            return micro_batches
        case "zero_bubble" | "zero_bubble_v":
            return min(pipeline, micro_batches)
        case "dualpipe_v":
            return min(pipeline + 0.5, micro_batches)
    if each == 1:
        return min(pipeline - rank, micro_batches)
    ahead = (each - 1) * min(pipeline, micro_batches) + 2 * (pipeline - 1 - rank) + 1
    return min(ahead / each, micro_batches)


def between(resources: Resources, rank: int, micro_batches: int) -> float:
    """Micro-batches that a rank has between their two backward passes at once, at the most: that
    for gradients of inputs, and that for gradients of weights, if a schedule has them apart.

    As torch 2.14 orders them (`distributed/pipelining/schedules.py`); a test counts them there.
    """
    pipeline = resources.pipeline
    match resources.schedule:
        case "zero_bubble" | "dualpipe_v":
            return (rank + 1) / resources.interleave
        case "zero_bubble_v":
            return rank + 0.5 if micro_batches > pipeline else 0.5
    return 0.0


Kind = Literal["loop", "split", "vee", "dual"]


def bubble_kind(resources: Resources) -> Kind:
    """Which formula of the cost model gives the time that ranks wait."""
    match resources.schedule:
        case "zero_bubble":
            return "split"
        case "zero_bubble_v":
            return "vee"
        case "dualpipe_v":
            return "dual"
    return "loop"
