"""Models that only read: what a forward pass over data takes of each GPU, and how long it takes.

The formulas are those of training (`formulas`), without a backward pass: fp32 weights, sharded,
gathered in the precision of the layers, no gradients and no moments; of one layer at a time what it
makes; and the logits of `PIECE` places. Nothing was fitted for them.
"""

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any, NamedTuple

from ..values import ModelShape, Reading, Resources
from .digits import digits
from .estimate import Estimate, Setting, estimate
from .hardware import Gpu

PIECE = 2048
"""How many places have their logits in memory at once."""
CHUNK = 1024
"""How many records, documents or answers are finished together."""
MULTIPLE = 128
"""Rows on GPUs are padded to a multiple of so many tokens of each tensor rank."""
PARTS = ("parameters", "activations", "logits", "buffers", "margin")
"""What memory holds where nothing is learned, by the names that training has."""


class Reader(NamedTuple):
    """A model that reads, and where.

    Attributes:
        seq_len: tokens of its longest row.
        micro_batch: so many of those rows a data-parallel rank takes at a time, or as many more as
            shorter ones hold tokens.
        precision: of the layers: "bf16" or "fp32".
        scores: its head gives one score, not a logit for each token.
    """

    model: ModelShape
    resources: Resources
    seq_len: int
    micro_batch: int
    precision: str
    scores: bool

    @classmethod
    def of(
        cls,
        model: ModelShape,
        seq_len: int,
        resources: Resources,
        torchtitan: Mapping[str, Any],
        *,
        scores: bool,
    ) -> "Reader":
        """That of a job with these fields."""
        training = torchtitan["training"]
        return cls(
            model=model,
            resources=resources,
            seq_len=seq_len,
            micro_batch=training["local_batch_size"],
            precision="bf16" if training["mixed_precision_param"] == "bfloat16" else "fp32",
            scores=scores,
        )


class Rows(NamedTuple):
    """Rows of a source, alike: how many, and tokens of each."""

    number: int
    length: int


def reading(of: Reader, gpu: Gpu, rows: Sequence[Rows] | None) -> Reading:
    """What a model that reads takes of the fullest GPU, and seconds of all it reads, at most.

    Loading weights is left out.

    Args:
        rows: of each source; None: that is not known.
    """
    most = _estimate(of, gpu, max(_room(of), _padded(of, of.seq_len)), micro_batch=1).memory
    memory = {part: round(most[part]) for part in PARTS}
    return Reading(
        memory=memory,
        gpu_memory=gpu.memory,
        fits=sum(memory.values()) <= gpu.memory,
        seconds=None if rows is None else digits(fsum(_seconds(of, gpu, each) for each in rows)),
    )


def _seconds(of: Reader, gpu: Gpu, rows: Rows) -> float:
    """The time for the rows of a source.

    The rows of a chunk are dealt out to the ranks that have different data, who take part in all
    passes, whether they have rows of their own or not.
    """
    length = _padded(of, rows.length)
    here = max(_room(of) // length, 1)
    whole, rest = divmod(rows.number, CHUNK)
    seconds = 0.0
    for chunks, number in ((whole, CHUNK), (1, rest)):
        if chunks and number:
            passes = -(-number // (here * _readers(of)))
            found = _estimate(of, gpu, length, micro_batch=min(here, number), passes=passes)
            seconds += chunks * found.seconds
    return seconds


def _room(of: Reader) -> int:
    """Tokens that a rank takes at a time, as far as rows are not longer."""
    return of.micro_batch * of.seq_len


def _padded(of: Reader, length: int) -> int:
    multiple = MULTIPLE * of.resources.tensor
    return -(-length // multiple) * multiple


def _readers(of: Reader) -> int:
    """Ranks that have different data."""
    return of.resources.replicate * of.resources.shard


def _estimate(of: Reader, gpu: Gpu, length: int, *, micro_batch: int, passes: int = 1) -> Estimate:
    return estimate(
        Setting(
            model=of.model,
            resources=of.resources,
            seq_len=length,
            micro_batch=micro_batch,
            sequences=micro_batch * _readers(of) * passes,
            recompute="none",
            gpus_per_node=of.resources.per_node or of.resources.world_size,
            gpu=gpu,
            precision=of.precision,
            chunks=max(length * micro_batch / PIECE, 1),
            plain_loss=True,
            reads=True,
            scores=of.scores,
        )
    )
