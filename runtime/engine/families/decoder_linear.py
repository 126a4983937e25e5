"""Linear attention of decoders that are put together from parts: gated delta nets.

Names carry shapes: B sequences, L tokens, C channels, N heads of values, D model dimensions, V the
width of a value, W tokens of a convolution.
"""
# ruff: noqa: N803 (the names of the shapes)

from dataclasses import dataclass
from functools import partial
from typing import Any

import spmd_types as spmd
import torch
from torch import nn
from torchtitan.models.common import Linear
from torchtitan.models.common.decoder_sharding import (
    colwise_config,
    dense_activation_placement,
    dense_param_placement,
    rowwise_config,
)
from torchtitan.protocols.module import Module
from torchtitan.protocols.sharding import LocalMapConfig, ShardingConfig

from .decoder_delta import delta_rule
from .parts import Init, linear, log_uniform


class Numbers(Module):
    """A parameter that others compute with."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        shape: tuple[int, ...]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.shape))


def convolved(
    x_BLC: torch.Tensor, filter_CW: torch.Tensor, positions_BL: torch.Tensor
) -> torch.Tensor:
    """SiLU of a convolution of each channel with the tokens before, of the same document.

    Args:
        filter_CW: the last column is for the token itself.
        positions_BL: tokens before in the document.
    """
    width = filter_CW.shape[1]
    out = x_BLC * filter_CW[:, -1]
    for back in range(1, min(width, x_BLC.shape[1])):
        seen = (positions_BL >= back)[..., None]
        before = nn.functional.pad(x_BLC[:, :-back], (0, 0, back, 0))
        out = out + before.masked_fill(~seen, 0) * filter_CW[:, width - 1 - back]
    return nn.functional.silu(out)


class DeltaKernel(Module):
    """What a gated delta net does between its products: on the heads of a rank."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        key_dim: int
        value_dim: int
        eps: float

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.key_dim, self.value_dim, self.eps = config.key_dim, config.value_dim, config.eps

    # Long because the parameters are arguments: what is sharded is named here.
    def forward(
        self,
        q_BLC: torch.Tensor,
        k_BLC: torch.Tensor,
        v_BLC: torch.Tensor,
        z_BLC: torch.Tensor,
        a_BLN: torch.Tensor,
        b_BLN: torch.Tensor,
        q_filter_CW: torch.Tensor,
        k_filter_CW: torch.Tensor,
        v_filter_CW: torch.Tensor,
        rate_N: torch.Tensor,
        shift_N: torch.Tensor,
        norm_V: torch.Tensor,
        *,
        positions: torch.Tensor | None,
    ) -> torch.Tensor:
        """Returns the mixed values, normed and gated, shape (B, L, C) of the values."""
        if positions is None:
            positions = torch.arange(q_BLC.shape[1], device=q_BLC.device).expand(q_BLC.shape[:2])
        begins = positions == 0
        begins = torch.cat([torch.ones_like(begins[:, :1]), begins[:, 1:]], 1)
        q = convolved(q_BLC, q_filter_CW, positions).unflatten(2, (-1, self.key_dim))
        k = convolved(k_BLC, k_filter_CW, positions).unflatten(2, (-1, self.key_dim))
        v = convolved(v_BLC, v_filter_CW, positions).unflatten(2, (-1, self.value_dim))
        high = torch.promote_types(rate_N.dtype, torch.float32)
        pace = nn.functional.softplus(a_BLN.to(high) + shift_N.to(high))
        decay = -rate_N.to(high).exp() * pace
        out = delta_rule(q, k, v, decay, b_BLN.sigmoid(), begins).to(high)
        out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + self.eps)
        out = norm_V * out.to(v.dtype)
        gate = nn.functional.silu(z_BLC.to(high)).unflatten(2, (-1, self.value_dim))
        return (out * gate).to(v.dtype).flatten(2)


class DeltaNet(Module):
    """A gated delta net (arXiv:2412.06464 §3.3), as in Qwen3-Next: heads of values may share those
    of queries and keys."""

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        wq: Linear.Config
        wk: Linear.Config
        wv: Linear.Config
        wz: Linear.Config
        wa: Linear.Config
        wb: Linear.Config
        wo: Linear.Config
        q_filter: Numbers.Config
        k_filter: Numbers.Config
        v_filter: Numbers.Config
        # Named so that they do not decay, as norms do not.
        rate_bias: Numbers.Config
        shift_bias: Numbers.Config
        norm: Numbers.Config
        kernel: DeltaKernel.Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        for name in (*PRODUCTS, "wo", *NUMBERS, "kernel"):
            setattr(self, name, getattr(config, name).build())

    def forward(
        self, x_BLD: torch.Tensor, attention_masks: Any, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns what a token has gathered from others, shape (B, L, D)."""
        made = [getattr(self, name)(x_BLD) for name in PRODUCTS]
        numbers = [getattr(self, name).weight for name in NUMBERS]
        kernel: Any = self.kernel
        wo: Any = self.wo
        return wo(kernel(*made, *numbers, positions=positions))


PRODUCTS = ("wq", "wk", "wv", "wz", "wa", "wb")
NUMBERS = ("q_filter", "k_filter", "v_filter", "rate_bias", "shift_bias", "norm")


def numbers(init: Init, *shape: int) -> Numbers.Config:
    """A parameter of this shape."""
    return Numbers.Config(shape=shape, param_init={"weight": init})


def delta_net(
    parts: dict[str, Any], dim: int, norm_eps: float, drawn: Init, last: Init
) -> DeltaNet.Config:
    """The gated delta net of a layer. Its decay starts as in transformers (`modeling_qwen3_5.py`):
    rates between 0.01 and 16, all shifted by 1; convolutions as PyTorch draws them."""
    heads, width = parts["linear_heads"], parts["linear_convolution"]
    keys = parts["linear_key_heads"] * parts["linear_key_dim"]
    values = heads * parts["linear_value_dim"]
    filters = partial(nn.init.uniform_, a=-(width**-0.5), b=width**-0.5)
    return DeltaNet.Config(
        wq=linear(keys, dim, drawn),
        wk=linear(keys, dim, drawn),
        wv=linear(values, dim, drawn),
        wz=linear(values, dim, drawn),
        wa=linear(heads, dim, drawn),
        wb=linear(heads, dim, drawn),
        wo=linear(dim, values, last),
        q_filter=numbers(filters, keys, width),
        k_filter=numbers(filters, keys, width),
        v_filter=numbers(filters, values, width),
        rate_bias=numbers(partial(log_uniform, a=0.01, b=16.0), heads),
        shift_bias=numbers(nn.init.ones_, heads),
        norm=numbers(nn.init.ones_, parts["linear_value_dim"]),
        kernel=DeltaKernel.Config(
            key_dim=parts["linear_key_dim"], value_dim=parts["linear_value_dim"], eps=norm_eps
        ),
    )


def shard_delta(of: DeltaNet.Config, layout: Any, *, enable_sp: bool) -> None:
    """How tensor parallelism shares a gated delta net: by heads, as torchtitan's Qwen3.5."""
    for name in PRODUCTS:
        getattr(of, name).sharding_config = colwise_config()
    of.wo.sharding_config = rowwise_config(output_sp=enable_sp)
    rows, whole = dense_param_placement(tp=spmd.S(0)), dense_param_placement(tp=spmd.R)
    placed = {name: whole if name == "norm" else rows for name in NUMBERS}
    for name, placement in placed.items():
        getattr(of, name).sharding_config = ShardingConfig(state_shardings={"weight": placement})
    heads = dense_activation_placement(tp=spmd.S(2))
    given: dict[str, Any] = dict.fromkeys(
        ("q_BLC", "k_BLC", "v_BLC", "z_BLC", "a_BLN", "b_BLN"), heads
    )
    of_rank = ("q_filter_CW", "k_filter_CW", "v_filter_CW", "rate_N", "shift_N", "norm_V")
    given |= dict(zip(of_rank, placed.values(), strict=True))
    gradients = dense_param_placement(tp=spmd.P)
    of.kernel.sharding_config = ShardingConfig(
        in_src_shardings=given,
        out_src_shardings=heads,
        local_map=LocalMapConfig(
            in_grad_placements=(heads,) * 6 + (rows,) * 5 + (gradients,),
        ),
    )
    of.sharding_config = ShardingConfig(
        in_src_shardings={"x_BLD": layout},
        in_dst_shardings={"x_BLD": dense_activation_placement(tp=spmd.R)},
    )
