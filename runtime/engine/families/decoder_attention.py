"""Attention of decoders that are put together from parts: torchtitan's, with what it lacks.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head, D model dimensions.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

from dataclasses import dataclass
from math import log, log2
from typing import Any

import torch
from torch import nn
from torchtitan.models.common import ComplexRoPE, CosSinRoPE, Linear, RMSNorm
from torchtitan.models.common.attention import GQAttention
from torchtitan.protocols.module import Module

_SCALED = (
    "dim",
    "max_seq_len",
    "theta",
    "scaling",
    "scaling_factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
)


class Rotary(CosSinRoPE):
    """Rotary positions of the first `dim` elements of a head, or of none.

    With YaRN, queries and keys are scaled besides (arXiv:2309.00071 §3.4).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CosSinRoPE.Config):
        skipped: bool = False

    def _precompute_cache(self) -> torch.Tensor:
        of: Any = self.config
        if of.scaling == "llama":
            # torchtitan 0.3 has this scaling in its other form of rotary positions alone.
            given = {name: getattr(of, name) for name in _SCALED}
            turns = ComplexRoPE.Config(**given).build().cache
            return torch.cat([turns.real, turns.real, turns.imag, turns.imag], -1)
        cache = super()._precompute_cache()
        longer = of.scaling == "yarn" and of.rope_factor > 1
        return cache * (0.1 * log(of.rope_factor) + 1) if longer else cache

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, positions: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns queries and keys, shape (B, L, N, H), rotated."""
        of: Any = self.config
        if of.skipped:
            return query, key
        if of.dim == query.shape[-1]:
            return super().forward(query, key, positions)
        q, k = super().forward(query[..., : of.dim], key[..., : of.dim], positions)
        rest = (each[..., of.dim :] for each in (query, key))
        return torch.cat([q, next(rest)], -1), torch.cat([k, next(rest)], -1)


class WideNorm(RMSNorm):
    """RMSNorm over all heads together."""

    @dataclass(kw_only=True, slots=True)
    class Config(RMSNorm.Config):
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, shape (B, L, N, H), normed."""
        return super().forward(x.flatten(2)).view_as(x)


class HeadsNorm(Module):
    """LayerNorm of each head with scales of its own, and no biases."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        heads: int
        width: int
        eps: float

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.eps = config.eps
        self.weight = nn.Parameter(torch.empty(config.heads, config.width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, shape (B, L, N, H), normed."""
        return nn.functional.layer_norm(x, x.shape[-1:], None, None, self.eps) * self.weight


def slopes(heads: int) -> torch.Tensor:
    """ALiBi's slope of each head, shape (N,): a geometric series from 2^(-8/n), where n is the
    largest power of 2 up to `heads`; the other heads take every other one of the series for 2n
    (arXiv:2108.12409 §3 and its reference implementation)."""
    power = 1 << int(log2(heads))
    first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
    return torch.tensor(first + between)


class PartsAttention(GQAttention):
    """Grouped-query attention whose norm of keys may be of another width than that of queries, or
    come after the rotation, whose queries, keys and values may be clipped, whose scores may be
    capped, and fall with the distance (ALiBi), and whose result may have a gate."""

    @dataclass(kw_only=True, slots=True)
    class Config(GQAttention.Config):
        k_norm: Any = None
        factor: float = 0.0  # of scores; 0: one by the square root of a head's width
        cap: float = 0.0
        alibi: bool = False
        clip: float = 0.0  # of queries, keys and values; 0: none
        late: bool = False  # norms come after the rotation
        gate: Linear.Config | None = None  # a sigmoid of its product multiplies what is gathered

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cap, self.alibi, self.first_head = config.cap, config.alibi, 0
        self.clip, self.late = config.clip, config.late
        self.scaling = config.factor or self.scaling
        self.gate = config.gate.build() if config.gate else None
        if config.k_norm is not None:
            self.k_norm = config.k_norm.build()
        if self.alibi:
            self.register_buffer("slopes", slopes(self.n_heads), persistent=False)

    def parallelize(self, parallel_dims: Any) -> None:
        """Shards weights, and takes the slopes of the rank's own heads."""
        mesh = parallel_dims.get_optional_mesh("tp")
        if mesh is not None:
            self.first_head = mesh.get_local_rank() * self.n_heads // mesh.size()
        super().parallelize(parallel_dims)

    def _init_self_buffers(self, *, buffer_device: torch.device | None = None) -> None:
        if self.alibi:
            device = buffer_device or self.slopes.device
            self.slopes = slopes(self.n_heads).to(device)

    def forward(
        self, x_BLD: torch.Tensor, attention_masks: Any, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns what a token has gathered from others, shape (B, L, D)."""
        scored = bool(self.cap or self.alibi)
        if not (scored or self.clip or self.late or self.gate):
            return super().forward(x_BLD, attention_masks, positions)
        xq, xk, xv = self.qkv_linear(x_BLD)
        if self.clip:
            xq, xk, xv = (each.clamp(-self.clip, self.clip) for each in (xq, xk, xv))
        if self.late:
            xq, xk = self._normed(*self.rope(xq, xk, positions))
        else:
            xq, xk = self.rope(*self._normed(xq, xk), positions)
        out_BLNH = self.inner_attention(
            xq,
            xk,
            xv,
            attention_masks=attention_masks,
            scale=self.scaling,
            enable_gqa=self.enable_gqa,
            **({"score_mod": self._changed(positions)} if scored else {}),
        ).contiguous()
        mixed = out_BLNH.flatten(2)
        return self.wo(mixed if self.gate is None else mixed * torch.sigmoid(self.gate(x_BLD)))

    def _normed(self, xq: torch.Tensor, xk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.q_norm is None or self.k_norm is None:
            return xq, xk
        return self.q_norm(xq), self.k_norm(xk)

    def _changed(self, positions: torch.Tensor | None) -> Any:
        """How a score changes, as FlexAttention takes it: capped (arXiv:2408.00118 §2), then less
        by the distance of the tokens times the head's slope."""
        cap = self.cap
        by_head, first = self.slopes if self.alibi else None, self.first_head

        def changed(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
            if cap:
                score = cap * torch.tanh(score / cap)
            if by_head is None:
                return score
            if positions is None:
                return score + by_head[first + h] * (kv_idx - q_idx)
            return score + by_head[first + h] * (positions[b, kv_idx] - positions[b, q_idx])

        return changed
