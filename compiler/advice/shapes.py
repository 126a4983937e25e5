"""Advice on batches, sequence lengths, model shapes and their placement."""

from collections.abc import Iterator
from math import log

from ...spec.quantity import counted, literal, short
from ...spec.schema import recipe as r
from ..families import FAMILIES
from ..families.architectures import linear_layers
from ..families.mixed_computed import BALANCED
from ..pipelines import split_of
from ..placement import data_parallel
from ..program import Scheduled, ScheduledStage
from ..resolve.parts import still
from ..values import BALANCE_LOSSES
from . import Found, rule

JUMP = 4
"""Up to this multiple of the previous batch, in tokens, a step up is no jump."""
LARGE_VOCAB = 4096
"""Vocabulary size that a byte tokenizer leaves mostly unused."""
TILE = 64
"""16-bit elements in the 128 bytes that matrix units of GPUs process at a time."""
LARGEST_HEAD = 256
"""The largest head dimension that fused attention kernels take."""
LENGTHS_OF_BASES = ((10_000.0, 4096), (500_000.0, 131_072))
"""RoPE base and longest trained length: Llama 2 (arXiv:2307.09288) and Llama 3 (arXiv:2407.21783).
"""


def length_for(base: float) -> float:
    """The sequence length that goes with a RoPE base, interpolated between published ones."""
    (low, short_length), (high, long_length) = LENGTHS_OF_BASES
    slope = log(long_length / short_length) / log(high / low)
    return short_length * (base / low) ** slope


def _on_gpu(stage: ScheduledStage) -> bool:
    return stage.hardware.device != "cpu"


@rule("W611")
def batch_jumps(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    if stage.parent is None or stage.spec.batch is None or not isinstance(stage.spec, r.Train):
        return
    before = program.trained(stage.parent)
    if not isinstance(before, ScheduledStage) or not isinstance(before.spec, r.Train):
        return
    last = before.batches[-1].sequences * before.lengths[-1][2]
    first = stage.batches[0].sequences * stage.lengths[0][2]
    if first > JUMP * last:
        yield Found(
            f"the batch jumps from {short(last)} to {short(first)} tokens at the beginning of "
            "this stage",
            stage.spec.at("batch"),
            f"increase it gradually: `{literal(last)} tokens -> {literal(first)} tokens for 10% "
            "then …`, and the learning rate with it",
        )


@rule("W614")
def head_width(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    width = stage.model.head_dim
    if stage.spec.model and _on_gpu(stage) and (width % 8 or width > LARGEST_HEAD):
        yield Found(
            f"heads are {width} wide, which fused attention kernels do not support",
            _model(stage, program, "heads"),
            f"choose `heads` so that dim / heads is a multiple of 8, at most {LARGEST_HEAD}",
        )


@rule("W615")
def base_unchanged(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """A stage that lengthens its sequences but keeps a RoPE base that is too small for them."""
    if stage.parent is None or stage.spec.seq_len is None:
        return
    before, longest = program.trained(stage.parent).last, stage.longest
    base = max(segment.rope_theta for segment in stage.segments)
    if longest <= before.seq_len or stage.model.rope_scaling != "none":
        return
    if longest > 1.01 * length_for(base):
        yield Found(
            f"sequences grow to {short(longest)} tokens, but the RoPE base stays at {short(base)}"
            if base == before.rope_theta
            else f"a RoPE base of {short(base)} is small for sequences of {short(longest)} tokens",
            stage.spec.at("seq_len"),
            _larger(longest),
        )


@rule("W616")
def base_too_small(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """New weights with a RoPE base that is too small for their sequences."""
    longest = stage.longest
    base = max(segment.rope_theta for segment in stage.segments)
    scaled = stage.model.rope_scaling != "none"
    if stage.spec.model and not scaled and longest > 1.01 * length_for(base):
        yield Found(
            f"a RoPE base of {short(base)} is small for sequences of {short(longest)} tokens",
            stage.spec.at("seq_len"),
            _larger(longest),
        )


def _larger(length: int) -> str:
    base = LENGTHS_OF_BASES[0][0]
    while length > 1.01 * length_for(base):
        base *= 1.05
    return f"write `rope_theta = {-(-int(base) // 10_000) * 10_000}` or more"


@rule("W617")
def tensor_across_nodes(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    node = stage.hardware.per_node
    tensor = max(segment.resources.tensor for segment in stage.segments)
    if _on_gpu(stage) and tensor > node:
        yield Found(
            f"tensor {tensor} spans nodes of {counted(node, 'GPUs')}",
            stage.spec.at("parallel"),
            f"write `tensor {node}` or less, and let `pipeline` or `shard` span nodes",
        )


@rule("W618")
def pipeline_bubble(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """A pipeline whose largest batch has fewer sequences per rank than the pipeline has stages."""
    most, need, stages = 0, 0.0, 1
    for segment in stage.segments:
        r = segment.resources
        need = max(need, r.pipeline / r.interleave)
        stages = max(stages, r.pipeline)
        batch = max(
            b.sequences
            for b in stage.batches
            if b.from_step < segment.to_step and b.to_step > segment.from_step
        )
        most = max(most, batch // data_parallel(segment.resources))
    if stages > 1 and most < need:
        yield Found(
            f"a pipeline of {stages} ranks has at most {counted(most, 'sequences')} to process "
            "at a time",
            stage.spec.at("parallel"),
            "half of the ranks wait for the others: interleave or shorten the pipeline, or use a "
            "larger batch",
        )


@rule("W619")
def experts_unbalanced(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    experts = stage.model.experts
    learned = any(stage.settings.get(name) for name in BALANCE_LOSSES)
    if stage.spec.model and experts and not experts.balance and not learned:
        yield Found(
            f"nothing balances the load of the {counted(experts.count, 'experts')}",
            _model(stage, program, "experts"),
            "write `balance = 0.001` there, or `sequence_balance_loss = 1e-4` in the stage",
        )


@rule("W620")
def balance_lost(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    experts = stage.model.experts
    of = stage.model.parts
    stored = (of and of.published in BALANCED) or FAMILIES[stage.model.family].score == "sigmoid"
    if stage.spec.model and experts and experts.balance and not stored:
        yield Found(
            "exports of this model cannot store the bias that balances its experts",
            _model(stage, program, "experts"),
            "measurements on exports differ slightly from the trained model",
        )


@rule("N611")
def vocabulary_in_tiles(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    vocab = stage.model.vocab
    if stage.spec.model and _on_gpu(stage) and vocab % TILE:
        yield Found(
            f"a vocabulary of {vocab:,} is not a multiple of {TILE}",
            _model(stage, program, "vocab"),
            f"write `vocab = {_up(vocab, TILE)}`",
        )


@rule("N613")
def kernels_apart(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """Linear attention on GPUs: its kernels are a package of their own."""
    if stage.spec.model and _on_gpu(stage) and (layers := linear_layers(stage.model)):
        yield Found(
            f"{counted(layers, 'layers')} with linear attention would have kernels of their "
            "own, which PyTorch does not bring",
            _model(stage, program, "parts"),
            "install them on every node: `pip install 'etude[linear]'`; they are then used",
        )


@rule("N612")
def uneven_pipeline(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    layers = stage.model.layers
    meshes = [segment.resources for segment in stage.segments]
    splits = {(mesh.pipeline * mesh.interleave, sum(split_of(mesh))) for mesh in meshes}
    for stages, less in sorted(splits):
        if layers % stages and (layers + less) % stages:
            yield Found(
                f"{counted(layers, 'layers')} do not divide evenly into a pipeline of {stages} "
                "stages",
                stage.spec.at("parallel"),
                "the other stages wait for the fuller ones; the embedding and "
                "the output may count as a layer each",
            )


def _model(stage: ScheduledStage, program: Scheduled, attribute: str):
    return program.recipe.models[stage.spec.model or ""].at(attribute)


def _up(number: int, to: int) -> int:
    return -(-number // to) * to


@rule("W610")
def bytes_under_a_large_vocabulary(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """New weights with a byte tokenizer and a vocabulary many times as large."""
    tokenizer = program.recipe.tokenizers.get(stage.tokenizer or "")
    vocab = stage.model.vocab
    if stage.parent is None and tokenizer and tokenizer.bytes and vocab >= LARGE_VOCAB:
        yield Found(
            "the tokenizer has only 256 bytes and a few special tokens, but the model has "
            f"{vocab:,} tokens: most of its embedding is never trained",
            _model(stage, program, "vocab"),
            "train a tokenizer, name a published one with `hub` or `file`, or write `vocab = 512`",
        )


@rule("W609")
def longer_than_known(stage: ScheduledStage, program: Scheduled) -> Iterator[Found]:
    """Dialogs or preferences in rows longer than any sequence that the model, or the teacher of a
    model, was trained on."""
    length = stage.longest
    if isinstance(stage.spec, r.Distill) and length > _known(stage.spec.teacher, program):
        known = _known(stage.spec.teacher, program)
        yield Found(
            f"rows have {counted(length, 'tokens')}, but the teacher was trained on sequences of "
            f"{known:,}",
            stage.spec.at("teacher"),
            f"write `seq_len = {known}`, or take a teacher with a longer context",
        )
    if isinstance(stage.spec, r.Train) or stage.spec.seq_len is None or stage.parent is None:
        return
    if stage.model.rope_scaling != program.trained(stage.parent).model.rope_scaling:
        return
    known = _known(stage.parent, program)
    if length > known:
        yield Found(
            f"rows have {counted(length, 'tokens')}, but the model was trained on sequences of "
            f"{known:,}",
            stage.spec.at("seq_len"),
            f"write `seq_len = {known}`, or extend the context first, in a train stage with "
            + ("a longer `seq_len`" if still(stage.model) else "a larger `rope_theta`"),
        )


def _known(name: str | None, program: Scheduled) -> int:
    """Tokens of the longest sequence that a result was trained on, in all stages before it."""
    known = 0
    while name is not None:
        before = program.trained(name)
        known = max(known, before.longest)
        name = next(iter(before.sources), None)
    return known
