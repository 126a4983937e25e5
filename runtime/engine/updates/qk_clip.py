"""QK-clip: after a step, the weights of queries and keys of a head are made smaller if one of its
attention scores was above a threshold (Kimi K2, arXiv:2507.20534 §2.1 and Algorithm 1).

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import spmd_types as spmd
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.nn.attention.flex_attention import AuxRequest
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.compile import maybe_regional_inductor
from torchtitan.models.common.attention import FlexAttention
from torchtitan.models.common.decoder import Decoder
from torchtitan.tools.utils import get_local_device

from ..attention.documents import DocumentAttention, largest_scores
from ..families.family import replace_modules


class Watched:
    """Attention that keeps the largest score of each of this rank's heads; recomputing a layer
    changes nothing in it.

    Attributes:
        most: float32, shape (N,), a buffer; None: nothing is kept.
    """

    most: torch.Tensor | None
    register_buffer: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # pyright: ignore[reportCallIssue] (it stands before a module)
        self.register_buffer("most", None, persistent=False)

    def keep(self, found_N: torch.Tensor) -> None:
        """Takes in the largest scores of a micro-batch."""
        if self.most is not None:
            self.most.copy_(torch.maximum(self.most, found_N.float()))


class WatchedDocuments(Watched, DocumentAttention):
    """`DocumentAttention` that keeps them."""

    @dataclass(kw_only=True, slots=True)
    class Config(DocumentAttention.Config):
        pass

    def forward(
        self, q_BLNH: torch.Tensor, k_BLNH: torch.Tensor, v_BLNH: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Returns the mixed values, shape (B, L, N, H)."""
        with torch.no_grad(), spmd.no_typecheck():
            mask, scale = kwargs["attention_masks"], kwargs.get("scale")
            self.keep(largest_scores(q_BLNH, k_BLNH, mask, scale))
        return super().forward(q_BLNH, k_BLNH, v_BLNH, **kwargs)


class WatchedFlex(Watched, FlexAttention):
    """torchtitan's FlexAttention, which has the largest score of every query as well."""

    @dataclass(kw_only=True, slots=True)
    class Config(FlexAttention.Config):
        pass

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (without what changes scores)
        self,
        q_BLNH: torch.Tensor,
        k_BLNH: torch.Tensor,
        v_BLNH: torch.Tensor,
        *,
        attention_masks: Any,
        scale: float | None = None,
        enable_gqa: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Returns the mixed values, shape (B, L, N, H)."""
        with maybe_regional_inductor(FlexAttention.inductor_configs):
            out_BNLH, aux = FlexAttention.compiled_flex_attn(
                q_BLNH.transpose(1, 2),
                k_BLNH.transpose(1, 2),
                v_BLNH.transpose(1, 2),
                score_mod=kwargs.get("score_mod"),
                block_mask=attention_masks,
                scale=scale,
                enable_gqa=enable_gqa,
                return_aux=AuxRequest(max_scores=True),
                kernel_options=self.kernel_options,
            )
        with torch.no_grad(), spmd.no_typecheck():
            self.keep(aux.max_scores.detach().amax((0, 2)))
        return out_BNLH.transpose(1, 2)


WATCHED: dict[type, type] = {DocumentAttention: WatchedDocuments, FlexAttention: WatchedFlex}
"""Attention → the same that keeps its largest scores."""


def watch(model: Decoder.Config) -> None:
    """Replaces the attention of a model, before it is built."""
    replace_modules(model, WATCHED)


class _Layer(NamedTuple):
    """Attention of a layer, and where it keeps its largest scores."""

    attention: Any
    inner: Any


class QkClip:
    """Clips the weights of the layers that this rank has.

    A head whose largest score is s has the factor γ = min(1, threshold / s). Where heads have keys
    of their own, the weights of its queries and keys are multiplied by √γ. Heads that share keys
    multiply these by √g, where g is the smallest of their factors, and their queries by γ / √g.
    With latents, √γ is for the parts without positions, and γ for the rotary part of the queries,
    since that of the keys is shared by all heads.

    Args:
        parts: of the model, those of this rank's stages of a pipeline; already parallelized.
    """

    def __init__(self, threshold: float, parts: Iterable[nn.Module], dims: ParallelDims) -> None:
        self._threshold, self._device = threshold, get_local_device()
        self._data, self._tensor, self._pipeline = (
            dims.get_optional_mesh(name) for name in ("loss", "tp", "pp")
        )
        share = 1 if self._tensor is None else self._tensor.size()
        self._layers = list(_watched(parts))
        for attention, inner in self._layers:
            inner.most = torch.empty(attention.n_heads // share, device=self._device)
        self.begin()

    def begin(self) -> None:
        """Forgets the scores, before a step."""
        for _, inner in self._layers:
            inner.most.fill_(-math.inf)

    @torch.no_grad()
    def clip(self) -> float:
        """Clips the weights, after a step; all ranks call this. Returns the largest score."""
        largest = torch.full((), -math.inf, device=self._device)
        if self._layers:
            most_PN = self._of_all(torch.stack([inner.most for _, inner in self._layers]))
            largest = most_PN.amax()
            factors_PN = torch.where(
                most_PN > self._threshold, self._threshold / most_PN, torch.ones_like(most_PN)
            )
            for (attention, _), factor_N in zip(self._layers, factors_PN, strict=True):
                for module, rows in _rows(attention, factor_N):
                    for weight in module.parameters(recurse=False):
                        _multiply(weight, rows)
        if self._pipeline is not None:
            dist.all_reduce(largest, dist.ReduceOp.MAX, self._pipeline.get_group())
        return float(largest)

    def _of_all(self, most_PN: torch.Tensor) -> torch.Tensor:
        """The largest scores of all heads over all data, shape (layers, heads)."""
        if self._data is not None:
            dist.all_reduce(most_PN, dist.ReduceOp.MAX, self._data.get_group())
        if self._tensor is None:
            return most_PN
        each = [torch.empty_like(most_PN) for _ in range(self._tensor.size())]
        dist.all_gather(each, most_PN, self._tensor.get_group())
        return torch.cat(each, dim=1)


def _watched(parts: Iterable[nn.Module]) -> Iterator[_Layer]:
    for part in parts:
        for module in part.modules():
            inner = getattr(module, "inner_attention", None)
            if isinstance(inner, Watched):
                yield _Layer(module, inner)


def _rows(attention: Any, factor_N: torch.Tensor) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """The linear layers of queries and keys, and what each of their rows is multiplied by."""
    root_N = factor_N.sqrt()
    if hasattr(attention, "wkv_b"):
        plain, rotary = attention.qk_nope_head_dim, attention.qk_rope_head_dim
        kept = torch.ones_like(factor_N)
        yield (
            attention.wq_b if attention.q_lora_rank else attention.wq,
            _by_head((root_N, plain), (factor_N, rotary)),
        )
        yield attention.wkv_b, _by_head((root_N, plain), (kept, attention.v_head_dim))
        return
    shared = factor_N.unflatten(0, (attention.n_kv_heads, -1)).amin(1).sqrt()
    each = attention.n_heads // attention.n_kv_heads
    queries = factor_N / shared.repeat_interleave(each)
    yield attention.qkv_linear.wq, _by_head((queries, attention.head_dim))
    yield attention.qkv_linear.wk, _by_head((shared, attention.head_dim))


def _by_head(*parts: tuple[torch.Tensor, int]) -> torch.Tensor:
    """Factors of rows from those of heads: consecutive parts of a head's rows, and how many rows
    each has."""
    return torch.cat([of[:, None].expand(-1, rows) for of, rows in parts], dim=1).flatten()


def _multiply(weight: torch.Tensor, rows: torch.Tensor) -> None:
    """Multiplies the rows of a matrix, or the elements of a bias, in place."""
    column = rows.view(-1, *(1,) * (weight.ndim - 1))
    if isinstance(weight, DTensor):
        # Rows that FSDP cuts behind tensor parallelism are no plain Shard, but have its `dim`.
        placed = [
            each if getattr(each, "dim", 0) == 0 else Replicate() for each in weight.placements
        ]
        column = distribute_tensor(column, weight.device_mesh, placed, src_data_rank=None)
        weight, column = weight.to_local(), column.to_local()
    weight.mul_(column)
