"""Attention on CPUs with a dense mask, which also returns the denominators of the softmax.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

import torch
import torch.nn.functional as F


def attend(
    q_BLNH: torch.Tensor,
    k_BLNH: torch.Tensor,
    v_BLNH: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """The mixed values, shape (B, L, N, H); k and v may have fewer heads than q.

    Args:
        mask: bool, shape (B, 1, L, L); None: causal.
    """
    out_BNLH = F.scaled_dot_product_attention(
        q_BLNH.transpose(1, 2),
        k_BLNH.transpose(1, 2),
        v_BLNH.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q_BLNH.shape[2] != k_BLNH.shape[2],
    )
    return out_BNLH.transpose(1, 2)


def attend_with_sums(
    q_BLNH: torch.Tensor,
    k_BLNH: torch.Tensor,
    v_BLNH: torch.Tensor,
    mask: torch.Tensor,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `attend` returns, and the log denominators of the softmax, shape (B, L, N)."""
    each = q_BLNH.shape[2] // k_BLNH.shape[2]
    q_BNLH, k_BNLH, v_BNLH = (
        of.transpose(1, 2).repeat_interleave(times, dim=1)
        for of, times in ((q_BLNH, 1), (k_BLNH, each), (v_BLNH, each))
    )
    by = q_BLNH.shape[-1] ** -0.5 if scale is None else scale
    scores_BNLL = (q_BNLH @ k_BNLH.transpose(2, 3)).float() * by
    scores_BNLL = scores_BNLL.masked_fill(~mask, float("-inf"))
    out_BNLH = scores_BNLL.softmax(-1).to(v_BNLH.dtype) @ v_BNLH
    return out_BNLH.transpose(1, 2), scores_BNLL.logsumexp(-1).transpose(1, 2)
