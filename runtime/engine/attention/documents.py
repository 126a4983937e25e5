"""Attention within documents: masks, and their use on the CPU.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's, which shards q, k and v by them)

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.models.common.attention import create_attention_mask
from torchtitan.protocols.module import Module

from . import masked
from .grouped import DENSE, Grouped, Score, largest, mixed
from .spans import Spans

Transform = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Mask = torch.Tensor | Grouped
Masks = Mask | Mapping[str, Mask]
WHOLE, NEAR = "basic_mask", "sliding_window_mask"
"""Mask names in torchtitan's models, for layers without and with a window."""


def of_documents(positions_BL: torch.Tensor, window: int, *, dense: bool) -> Masks:
    """What attention on CPUs takes for packed documents.

    Args:
        positions_BL: positions in the documents; a 0 begins a document.
        window: tokens that a token sees in layers with a window, including itself; 0: no windows.
        dense: also for long rows, with memory that is the square of their length.
    """
    if dense or positions_BL.shape[1] <= DENSE:
        return by_window(document_mask(positions_BL), positions_BL, window)
    return _grouped(Spans.of_documents(positions_BL), window)


def of_segments(
    segments_BL: torch.Tensor,
    prefixes_BL: torch.Tensor,
    positions_BL: torch.Tensor,
    window: int,
    *,
    dense: bool,
) -> Masks:
    """What attention on CPUs takes for segments; arguments as in `segment_mask` and
    `of_documents`."""
    if dense or positions_BL.shape[1] <= DENSE:
        return by_window(segment_mask(segments_BL, prefixes_BL), positions_BL, window)
    return _grouped(Spans.of_segments(segments_BL, prefixes_BL), window)


def _grouped(spans: Spans, window: int) -> Masks:
    whole = Grouped.of(spans)
    return {WHOLE: whole, NEAR: whole.within(window)} if window else whole


def document_mask(positions_BL: torch.Tensor) -> torch.Tensor:
    """Which tokens see which: earlier ones of the same document, and themselves.

    Args:
        positions_BL: positions in the documents; a 0 begins a document.

    Returns:
        bool, shape (B, 1, L, L): whether the token (third axis) sees the token (last axis).
    """
    document_BL = (positions_BL == 0).cumsum(dim=1)
    same_BLL = document_BL[:, :, None] == document_BL[:, None, :]
    return same_BLL.tril()[:, None]


def segment_mask(segments_BL: torch.Tensor, prefixes_BL: torch.Tensor) -> torch.Tensor:
    """Which tokens see which: earlier ones of their own segment and of its prefix, and themselves.

    Args:
        segments_BL: the number of each token's segment.
        prefixes_BL: the number of the segment that it continues; its own if it continues none.

    Returns:
        bool, shape (B, 1, L, L): whether the token (third axis) sees the token (last axis).
    """
    seen_BLL = segments_BL[:, None, :] == prefixes_BL[:, :, None]
    same_BLL = segments_BL[:, :, None] == segments_BL[:, None, :]
    return (seen_BLL | same_BLL).tril()[:, None]


def by_window(
    mask: torch.Tensor, positions_BL: torch.Tensor, window: int
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The masks for the layers of a model with windows: the mask, and the same within the window.

    Args:
        mask: bool, shape (B, 1, L, L).
        positions_BL: positions in the documents.
        window: tokens that a token sees in layers with a window, including itself; 0: no windows.
    """
    if not window:
        return mask
    apart_BLL = positions_BL[:, :, None] - positions_BL[:, None, :]
    return {WHOLE: mask, NEAR: mask & (apart_BLL < window)[:, None]}


def segment_blocks(
    segments_BL: torch.Tensor,
    prefixes_BL: torch.Tensor,
    positions_BL: torch.Tensor,
    window: int,
    block_size: int | tuple[int, int],
) -> BlockMask | dict[str, BlockMask]:
    """The masks of `segment_mask` and `by_window` in the form that FlexAttention takes."""
    B, L = segments_BL.shape

    def sees(
        b: torch.Tensor, _: torch.Tensor, q_idx: torch.Tensor, kv_idx: torch.Tensor
    ) -> torch.Tensor:
        theirs = segments_BL[b, kv_idx]
        seen = (theirs == prefixes_BL[b, q_idx]) | (theirs == segments_BL[b, q_idx])
        return (q_idx >= kv_idx) & seen

    def near(
        b: torch.Tensor, h: torch.Tensor, q_idx: torch.Tensor, kv_idx: torch.Tensor
    ) -> torch.Tensor:
        apart = positions_BL[b, q_idx] - positions_BL[b, kv_idx]
        return sees(b, h, q_idx, kv_idx) & (apart < window)

    masks = {
        name: create_attention_mask(
            of, B, None, L, L, device=segments_BL.device, BLOCK_SIZE=block_size
        )
        for name, of in ({WHOLE: sees, NEAR: near} if window else {WHOLE: sees}).items()
    }
    return masks if window else masks[WHOLE]


class DocumentAttention(Module):
    """Scaled dot-product attention by spans, in memory linear in the length, or with a dense mask:
    what `of_documents` and `of_segments` return for its layer.

    Replaces torchtitan's FlexAttention, which has no backward pass on the CPU.
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
        attention_masks: Mask,
        scale: float | None = None,
        score_mod: Score | None = None,
        out_transform: Transform | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Returns the mixed values, shape (B, L, N, H); k and v may have fewer heads than q.

        Args:
            score_mod: changes scores, as FlexAttention takes it; not with `out_transform`.
            out_transform: applied to the mixed values and to the logarithms of the softmax's
                denominators, shape (B, L, N).
        """
        if score_mod is not None:
            if isinstance(attention_masks, Grouped):
                return attention_masks.attend_scored(q_BLNH, k_BLNH, v_BLNH, score_mod, scale)
            return _scored(q_BLNH, k_BLNH, v_BLNH, attention_masks, score_mod, scale)
        if isinstance(attention_masks, Grouped):
            if out_transform is None:
                return attention_masks.attend(q_BLNH, k_BLNH, v_BLNH, scale)
            return out_transform(*attention_masks.attend_with_sums(q_BLNH, k_BLNH, v_BLNH, scale))
        if out_transform is not None:
            sums = masked.attend_with_sums(q_BLNH, k_BLNH, v_BLNH, attention_masks, scale)
            return out_transform(*sums)
        return masked.attend(q_BLNH, k_BLNH, v_BLNH, attention_masks, scale)


def largest_scores(
    q_BLNH: torch.Tensor, k_BLNH: torch.Tensor, mask: Mask, scale: float | None
) -> torch.Tensor:
    """The largest score of each head of the queries, over the tokens that see each other: shape
    (N,)."""
    if isinstance(mask, Grouped):
        return mask.largest(q_BLNH, k_BLNH, scale)
    return largest(q_BLNH, k_BLNH, ~mask, scale)


def _scored(
    q_BLNH: torch.Tensor,
    k_BLNH: torch.Tensor,
    v_BLNH: torch.Tensor,
    mask: torch.Tensor,
    score_mod: Score,
    scale: float | None,
) -> torch.Tensor:
    """Mixed values by changed scores."""
    rows, places = (torch.arange(n, device=q_BLNH.device) for n in q_BLNH.shape[:2])
    each = places.expand(len(rows), -1)
    return mixed(q_BLNH, k_BLNH, v_BLNH, ~mask, score_mod, scale, rows=rows, own=each, seen=each)
