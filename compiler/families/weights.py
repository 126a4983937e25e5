"""The weights of a layer: their shapes, and how ranks share them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ..values import ModelShape


class Weight(NamedTuple):
    """A weight.

    Attributes:
        cut: the axis that tensor parallelism splits; None: every rank has the whole weight.
        part: the part of a mixture of experts that the weight belongs to; or that it is a norm's
            and yet a matrix; or that it is a small one of linear attention, beside which there are
            no adapters, and which stays in bf16. The first axis of expert weights counts the
            experts.
    """

    shape: tuple[int, ...]
    cut: int | None
    part: Literal["router", "shared", "experts", "norm", "small"] | None = None


def grouped_attention(model: ModelShape) -> Iterator[Weight]:
    """Grouped-query attention."""
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    for rows in (queries, keys, keys):
        yield Weight((rows, model.dim), 0)
    yield Weight((model.dim, queries), 1)


def two_norms(model: ModelShape) -> Iterator[Weight]:
    """An RMSNorm of attention, and one of the feed-forward layer."""
    yield Weight((model.dim,), None)
    yield Weight((model.dim,), None)


def nothing(model: ModelShape) -> Iterator[Weight]:
    """No weights."""
    yield from ()


def last_norm(model: ModelShape) -> Iterator[Weight]:
    """The RMSNorm before the output."""
    yield Weight((model.dim,), None)


def further_weights(model: ModelShape) -> Iterator[Weight]:
    """What a module that predicts a further token has besides its layer (arXiv:2412.19437 §2.2):
    the matrix that joins an embedding to what the depth before gives, a norm of each, and one
    before the output."""
    yield Weight((model.dim, 2 * model.dim), None)
    for _ in range(3):
        yield Weight((model.dim,), None)


def dense(model: ModelShape) -> Iterator[Weight]:
    """The feed-forward layer of a layer without experts."""
    yield from swiglu(model.dim, model.ffn)


def swiglu(
    dim: int, ffn: int, part: Literal["router", "shared", "experts"] | None = None
) -> Iterator[Weight]:
    """A feed-forward layer of width `ffn`."""
    yield Weight((ffn, dim), 0, part)
    yield Weight((ffn, dim), 0, part)
    yield Weight((dim, ffn), 1, part)


def mixture(model: ModelShape) -> Iterator[Weight]:
    """A layer of experts without biases."""
    experts, dim = model.experts, model.dim
    assert experts
    count, ffn = experts.count, experts.ffn
    yield Weight((count, dim), None, "router")
    if experts.shared:
        yield from swiglu(dim, ffn * experts.shared, "shared")
    if experts.shared_gate:
        yield Weight((1, dim), None, "shared")
    yield Weight((count, ffn, dim), 1, "experts")
    yield Weight((count, ffn, dim), 1, "experts")
    yield Weight((count, dim, ffn), 2, "experts")
