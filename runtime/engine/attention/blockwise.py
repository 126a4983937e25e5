"""Causal attention on CPUs, block by block, in memory linear in the length.

PyTorch's own attention has this only for queries and keys of the same number, without a window, and
does not return the denominators of the softmax.

Names carry shapes: G sequences (each with one head of keys), R heads of queries for each, Q
queries, K keys, P keys before the first query's own, H dimensions.
"""
# ruff: noqa: N803, N806 (the names of the shapes)

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch

QUERIES, KEYS = 64, 512
"""Of a block of scores."""
SCORES = 1 << 18
"""Of all blocks that are computed together: 1 MiB, about what a core's cache holds."""


class _Block(NamedTuple):
    """Queries `first` to `last` of sequences `low` to `high`, and the keys that they see, in
    pieces. The last piece comes first; in it every query sees at least its own key."""

    low: int
    high: int
    first: int
    last: int
    keys: tuple[tuple[int, int], ...]


def attend(
    q_GRQH: torch.Tensor,
    k_GKH: torch.Tensor,
    v_GKH: torch.Tensor,
    scale: float,
    window: int = 0,
    absent_GP: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of the last queries to all keys: the last query sees all of them, the one before
    all but the last, and so on.

    Args:
        v_GKH: values may have fewer dimensions than keys.
        window: keys that a query sees, including its own; 0: all.
        absent_GP: bool, which of the first P keys no query sees.

    Returns:
        The mixed values, shape (G, R, Q, H), and the logarithms of the softmax's denominators,
        float32, shape (G, R, Q). The gradient flows through both.
    """
    return _Attention.apply(q_GRQH, k_GKH, v_GKH, scale, window, absent_GP)


def _blocks(q_GRQH: torch.Tensor, keys: int, window: int) -> Iterator[_Block]:
    G, R, Q, _ = q_GRQH.shape
    together = max(SCORES // (R * min(Q, QUERIES) * min(keys, KEYS)), 1)
    before = keys - Q
    for low in range(0, G, together):
        for first in range(0, Q, QUERIES):
            last = min(first + QUERIES, Q)
            begin = max(before + first - window + 1, 0) if window else 0
            # The first piece holds the keys of all queries of the block.
            ends = [before + last, *range(before + first, begin, -KEYS)]
            pieces = tuple(zip([*ends[1:], begin], ends, strict=True))
            yield _Block(low, min(low + together, G), first, last, pieces)


def _hide(
    s_GRQK: torch.Tensor, first: int, begin: int, window: int, absent_GP: torch.Tensor | None
) -> None:
    """Takes out the scores of keys that a query does not see.

    Args:
        first: the place of the first query's own key.
        begin: the place of the first key.
    """
    queries, keys = s_GRQK.shape[2:]
    hidden = float("-inf")
    if begin + keys > first + 1:
        own = s_GRQK[..., first - begin :]
        own.masked_fill_(_later(*own.shape[2:]), hidden)
    left = min(first + queries - window - begin, keys)
    if window and left > 0:
        at = torch.arange(first - window - begin, first + queries - window - begin)
        s_GRQK[..., :left].masked_fill_(torch.arange(left) <= at[:, None], hidden)
    if absent_GP is not None and begin < absent_GP.shape[1]:
        absent = absent_GP[:, None, None, begin : begin + keys]
        s_GRQK[..., : absent.shape[-1]].masked_fill_(absent, hidden)


@lru_cache(256)
def _later(queries: int, keys: int) -> torch.Tensor:
    """Which keys come after a query's own, the first query's being the first, bool."""
    return torch.ones(queries, keys, dtype=torch.bool).triu_(1)


def _part(of_GRQH: torch.Tensor, block: _Block) -> torch.Tensor:
    """The queries of a block, heads one after the other: shape (G, R · Q, H)."""
    return of_GRQH[block.low : block.high, :, block.first : block.last].flatten(1, 2)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_GRQH: torch.Tensor,
        k_GKH: torch.Tensor,
        v_GKH: torch.Tensor,
        scale: float,
        window: int,
        absent_GP: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind = q_GRQH.dtype
        q, k, v = q_GRQH.float(), k_GKH.float(), v_GKH.float()
        G, R, Q, _ = q.shape
        K = k.shape[1]
        out, lse = q.new_empty(G, R, Q, v.shape[2]), q.new_empty(G, R, Q)
        for block in _blocks(q, K, window):
            low, high, first, last, pieces = block
            part, absent = _part(q, block), _some(absent_GP, block)
            top = total = mixed = torch.zeros(())
            for begin, end in pieces:
                s = torch.bmm(part, k[low:high, begin:end].transpose(1, 2)).mul_(scale)
                _hide(
                    s.view(-1, R, last - first, end - begin), K - Q + first, begin, window, absent
                )
                values, most = v[low:high, begin:end], s.amax(-1, keepdim=True)
                if end < pieces[0][1]:
                    before, most = top, torch.maximum(top, most)
                    shrunk = before.sub_(most).exp_()
                    s.sub_(most).exp_()
                    total.mul_(shrunk).add_(s.sum(-1, keepdim=True))
                    mixed.mul_(shrunk).baddbmm_(s, values)
                else:
                    s.sub_(most).exp_()
                    total, mixed = s.sum(-1, keepdim=True), torch.bmm(s, values)
                top = most
            place = (slice(low, high), slice(None), slice(first, last))
            out[place] = mixed.div_(total).view(high - low, R, last - first, -1)
            lse[place] = top.add_(total.log_()).view(high - low, R, last - first)
        ctx.save_for_backward(q_GRQH, k_GKH, v_GKH, out, lse, absent_GP)
        ctx.scale, ctx.window = scale, window
        return out.to(kind), lse

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q_GRQH, k_GKH, v_GKH, out, lse, absent_GP = ctx.saved_tensors
        scale, window = ctx.scale, ctx.window
        q, k, v = q_GRQH.float(), k_GKH.float(), v_GKH.float()
        of_out, of_lse = gradients[0].float(), gradients[1]
        _, R, Q, _ = q.shape
        K = k.shape[1]
        # The part of each score's gradient that is the same for all keys of a query.
        same = (of_out * out).sum(-1).sub_(of_lse)[..., None]
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in _blocks(q, K, window):
            low, high, first, last, pieces = block
            part, given = _part(q, block), _part(of_out, block)
            sums, constant = _part(lse[..., None], block), _part(same, block)
            absent, of_part = _some(absent_GP, block), torch.zeros_like(part)
            for begin, end in pieces:
                keys, values = k[low:high, begin:end], v[low:high, begin:end]
                p = torch.baddbmm(sums, part, keys.transpose(1, 2), beta=-1, alpha=scale)
                _hide(
                    p.view(-1, R, last - first, end - begin), K - Q + first, begin, window, absent
                )
                p.exp_()
                dv[low:high, begin:end].baddbmm_(p.transpose(1, 2), given)
                p.mul_(torch.baddbmm(constant, given, values.transpose(1, 2), beta=-1))
                of_part.baddbmm_(p, keys, alpha=scale)
                dk[low:high, begin:end].baddbmm_(p.transpose(1, 2), part, alpha=scale)
            dq[low:high, :, first:last] = of_part.view(high - low, R, last - first, -1)
        kinds = ((dq, q_GRQH), (dk, k_GKH), (dv, v_GKH))
        return (*(found.to(given.dtype) for found, given in kinds), None, None, None)


def _some(absent_GP: torch.Tensor | None, block: _Block) -> torch.Tensor | None:
    return None if absent_GP is None else absent_GP[block.low : block.high]
