"""Attention within documents, on the CPU.

Names carry shapes: B sequences, L tokens, N heads, H dimensions a head.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's, which shards q, k and v by them)

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
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


class DocumentAttention(Module):
    """Scaled dot-product attention under a mask from `document_mask`.

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
