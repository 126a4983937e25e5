"""The modules of decoders that are put together from parts: torchtitan's where it has them.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head, D model dimensions.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

from dataclasses import dataclass
from functools import partial
from math import log, log2
from typing import Any

import torch
from torch import nn
from torchtitan.models.common import CosSinRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import GQAttention
from torchtitan.models.common.decoder import TransformerBlock
from torchtitan.protocols.module import Module

ACTIVATION = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu2": lambda x: nn.functional.relu(x).square(),
}


class Rotary(CosSinRoPE):
    """Rotary positions of the first `dim` elements of a head, or of none.

    With YaRN, queries and keys are scaled besides (arXiv:2309.00071 §3.4).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CosSinRoPE.Config):
        skipped: bool = False

    def _precompute_cache(self) -> torch.Tensor:
        cache, of = super()._precompute_cache(), self.config
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


def slopes(heads: int) -> torch.Tensor:
    """ALiBi's slope of each head, shape (N,): a geometric series from 2^(-8/n), where n is the
    largest power of 2 up to `heads`; the other heads take every other one of the series for 2n
    (arXiv:2108.12409 §3 and its reference implementation)."""
    power = 1 << int(log2(heads))
    first = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
    return torch.tensor(first + between)


class PartsAttention(GQAttention):
    """Grouped-query attention whose norm of keys may be of another width than that of queries, and
    whose scores may be capped, and fall with the distance (ALiBi)."""

    @dataclass(kw_only=True, slots=True)
    class Config(GQAttention.Config):
        k_norm: RMSNorm.Config | None = None
        factor: float = 0.0  # of scores; 0: one by the square root of a head's width
        cap: float = 0.0
        alibi: bool = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cap, self.alibi, self.first_head = config.cap, config.alibi, 0
        self.scaling = config.factor or self.scaling
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
        if not self.cap and not self.alibi:
            return super().forward(x_BLD, attention_masks, positions)
        xq, xk, xv = self.qkv_linear(x_BLD)
        if self.q_norm is not None and self.k_norm is not None:
            xq, xk = self.q_norm(xq), self.k_norm(xk)
        xq, xk = self.rope(xq, xk, positions)
        out_BLNH = self.inner_attention(
            xq,
            xk,
            xv,
            attention_masks=attention_masks,
            scale=self.scaling,
            enable_gqa=self.enable_gqa,
            score_mod=self._changed(positions),
        ).contiguous()
        return self.wo(out_BLNH.flatten(2))

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


class OutputLinear(Linear):
    """The output layer with logits times a factor, and capped (arXiv:2408.00118 §2)."""

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        scale: float = 1.0
        cap: float = 0.0  # 0: none

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.scale, self.cap = config.scale, config.cap

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns logits, within ±cap if there is one; shape (…, vocabulary)."""
        logits = super().forward(input)
        if self.scale != 1:
            logits = logits * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


class Start(Module):
    """What happens to embeddings before the first layer: a factor, positions, a norm."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        factor: float
        positions: Embedding.Config | None
        norm: Any

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.factor = config.factor
        # Named so that it does not decay, as the other embeddings.
        self.position_bias = config.positions.build() if config.positions else None
        self.norm = config.norm.build() if config.norm else None

    def forward(self, x: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        """Returns the first layer's inputs, shape (B, L, D)."""
        if self.factor != 1:
            x = x * self.factor
        if self.position_bias is not None:
            if positions is None:
                positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
            x = x + self.position_bias(positions)
        return x if self.norm is None else self.norm(x)


class PartsFeedForward(Module):
    """A feed-forward layer of three matrices, of which one gates, or of two."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        activation: str
        w1: Linear.Config
        w2: Linear.Config
        w3: Linear.Config | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.activate = ACTIVATION[config.activation]
        self.w1 = config.w1.build()
        self.w2 = config.w2.build()
        self.w3 = config.w3.build() if config.w3 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs for x, shape (B, L, D)."""
        hidden = self.activate(self.w1(x))
        return self.w2(hidden if self.w3 is None else hidden * self.w3(x))


class PartsBlock(TransformerBlock):
    """Attention and feed-forward layer, one after the other or side by side, with their norms."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        ffn_norm: Any  # None: one norm for both
        feed_forward: Any = None
        norms: str
        parallel: bool
        near: bool  # the layer has the window
        share: float = 1.0  # factor on what is added to the residual
        start: Start.Config | None = None  # of the first layer
        after_attention_norm: Any = None
        after_ffn_norm: Any = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.start = config.start.build() if config.start else None
        self.after, self.parallel = config.norms == "after", config.parallel
        self.share = config.share
        self.mask = "sliding_window_mask" if config.near else "basic_mask"
        self.attention = config.attention.build()
        self.feed_forward = config.feed_forward.build()
        self.attention_norm = config.attention_norm.build()
        self.ffn_norm = config.ffn_norm.build() if config.ffn_norm else None
        both = config.norms == "both"
        self.after_attention_norm = config.after_attention_norm.build() if both else None
        self.after_ffn_norm = config.after_ffn_norm.build() if both else None

    def forward(
        self, x: torch.Tensor, attention_masks: Any, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the layer's outputs, shape (B, L, D).

        Args:
            attention_masks: one mask, or those of layers with and without a window by their names.
        """
        if self.start is not None:
            x = self.start(x, positions)
        mask = attention_masks[self.mask] if isinstance(attention_masks, dict) else attention_masks
        normed = x if self.after else self.attention_norm(x)
        mixed = self._normed(
            self.attention(normed, mask, positions), self.attention_norm, self.after_attention_norm
        )
        h = x if self.parallel else x + mixed
        if self.ffn_norm is not None:
            normed = h if self.after else self.ffn_norm(h)
        fed = self._normed(self.feed_forward(normed), self.ffn_norm, self.after_ffn_norm)
        return x + mixed + fed if self.parallel else h + fed

    def _normed(self, x: torch.Tensor, norm: Any, after: Any) -> torch.Tensor:
        last = norm if self.after else after
        found = x if last is None else last(x)
        return found if self.share == 1 else found * self.share
