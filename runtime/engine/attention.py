"""Attention within documents, on the CPU.

Names carry shapes: B sequences, L tokens, N heads, H dimensions a head.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's, which shards q, k and v by them)

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.models.common.attention import create_attention_mask
from torchtitan.protocols.module import Module


def document_mask(positions_BL: torch.Tensor) -> torch.Tensor:
    """Which tokens see which: those of the same document that do not come later.

    Args:
        positions_BL: places in the documents; a 0 begins a document.

    Returns:
        bool, shape (B, 1, L, L): whether the token (third axis) sees the token (last axis).
    """
    document_BL = (positions_BL == 0).cumsum(dim=1)
    same_BLL = document_BL[:, :, None] == document_BL[:, None, :]
    return same_BLL.tril()[:, None]


def segment_mask(segments_BL: torch.Tensor) -> torch.Tensor:
    """Which tokens see which: those of their own segment, and those of segment 0, that do not
    come later.

    Args:
        segments_BL: the number of each token's segment.

    Returns:
        bool, shape (B, 1, L, L): whether the token (third axis) sees the token (last axis).
    """
    seen_BLL = segments_BL[:, None, :] == 0
    same_BLL = segments_BL[:, :, None] == segments_BL[:, None, :]
    return (seen_BLL | same_BLL).tril()[:, None]


def segment_blocks(segments_BL: torch.Tensor, block_size: int | tuple[int, int]) -> BlockMask:
    """The mask of `segment_mask`, as FlexAttention takes it."""
    B, L = segments_BL.shape

    def sees(
        b: torch.Tensor, _: torch.Tensor, q_idx: torch.Tensor, kv_idx: torch.Tensor
    ) -> torch.Tensor:
        theirs = segments_BL[b, kv_idx]
        return (q_idx >= kv_idx) & ((theirs == 0) | (theirs == segments_BL[b, q_idx]))

    return create_attention_mask(
        sees, B, None, L, L, device=segments_BL.device, BLOCK_SIZE=block_size
    )


class DocumentAttention(Module):
    """Scaled dot-product attention under a mask from `document_mask` or `segment_mask`.

    It stands in for torchtitan's FlexAttention, which has no backward pass on the CPU.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: torch.Tensor,
        scale: float | None = None,
        enable_gqa: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Returns the mixed values, shape (B, L, N, H); k and v may have fewer heads than q."""
        out_BNLH = F.scaled_dot_product_attention(
            q_BLNH.transpose(1, 2),
            k_BLNH.transpose(1, 2),
            v_BLNH.transpose(1, 2),
            attn_mask=attention_masks,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return out_BNLH.transpose(1, 2)
