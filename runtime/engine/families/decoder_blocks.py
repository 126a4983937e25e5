"""The modules of decoders that are put together from parts: torchtitan's where it has them.

Names carry shapes: B sequences, L tokens, N heads, H dimensions per head, D model dimensions.
"""

from dataclasses import dataclass
from functools import partial
from math import expm1, log
from typing import Any

import torch
from torch import nn
from torchtitan.models.common import Embedding, Linear
from torchtitan.models.common.decoder import TransformerBlock
from torchtitan.protocols.module import Module

ACTIVATION = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu2": lambda x: nn.functional.relu(x).square(),
}


class Xielu(Module):
    """xIELU, an activation with two learned slopes (arXiv:2411.13010 §3): α⁺x² + βx above 0, and
    α⁻(eˣ − 1 − x) + βx below, where β is 0.5."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__()
        # Before softplus, which keeps the slopes above 0 and β.
        self.alpha_p = nn.Parameter(torch.empty(1))
        self.alpha_n = nn.Parameter(torch.empty(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the activation of x, of the same shape."""
        above = nn.functional.softplus(self.alpha_p)
        below = BETA + nn.functional.softplus(self.alpha_n)
        curved = torch.expm1(torch.clamp(x, max=-1e-6)) - x
        return torch.where(x > 0, above * x * x, curved * below) + BETA * x


BETA = 0.5


def slope(of: float) -> Any:
    """Sets a parameter to what softplus makes `of`."""
    return partial(nn.init.constant_, val=log(expm1(of)))


class ScaleNorm(nn.LayerNorm, Module):
    """LayerNorm without a bias."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        normalized_shape: int
        eps: float

    def __init__(self, config: Config) -> None:
        super().__init__(config.normalized_shape, eps=config.eps, bias=False)


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
        learned: Xielu.Config | None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        # Named so that it does not decay, as norms do not.
        self.activation_bias = config.learned.build() if config.learned else None
        self.activate: Any = ACTIVATION.get(config.activation)
        self.w1 = config.w1.build()
        self.w2 = config.w2.build()
        self.w3 = config.w3.build() if config.w3 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs for x, shape (B, L, D)."""
        learned = self.activation_bias
        hidden = self.activate(self.w1(x)) if learned is None else learned(self.w1(x))
        return self.w2(hidden if self.w3 is None else hidden * self.w3(x))


class PartsBlock(TransformerBlock):
    """Attention, and a feed-forward layer or experts, one after the other or side by side, with
    their norms."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        attention: Any  # None: the layer has linear attention
        delta_net: Any = None
        ffn_norm: Any  # None: one norm for both
        feed_forward: Any = None  # None: the layer has experts
        moe: Any = None
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
        # One of the two: torchtitan finds layers with attention by what the other lacks.
        self.attention = config.attention.build() if config.attention else None
        self.delta_net = config.delta_net.build() if config.delta_net else None
        self.moe_enabled = config.moe is not None
        if self.moe_enabled:
            self.moe: Any = config.moe.build()
        else:
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
        mix: Any = self.delta_net if self.attention is None else self.attention
        mixed = self._normed(
            mix(normed, mask, positions), self.attention_norm, self.after_attention_norm
        )
        h = x if self.parallel else x + mixed
        if self.ffn_norm is not None:
            normed = h if self.after else self.ffn_norm(h)
        feed: Any = self.moe if self.moe_enabled else self.feed_forward
        fed = self._normed(feed(normed), self.ffn_norm, self.after_ffn_norm)
        return x + mixed + fed if self.parallel else h + fed

    def _normed(self, x: torch.Tensor, norm: Any, after: Any) -> torch.Tensor:
        last = norm if self.after else after
        found = x if last is None else last(x)
        return found if self.share == 1 else found * self.share
