"""gpt-oss as torchtitan builds it: windows in every other layer, sinks, biases, and experts.

Names carry shapes: R routed tokens in the order of their experts, E experts, D dimensions, F width
of an expert, G twice F.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor
from torchtitan.distributed.spmd_types import spmd_mesh_size
from torchtitan.models.common import CosSinRoPE, Linear
from torchtitan.models.common.attention import QKVLinear
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_token_dispatcher_config,
)
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.linear import ScaledBiasRowwiseLinear
from torchtitan.models.common.moe import RoutedExperts, TokenChoiceTopKRouter
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.gpt_oss import GptOssModel, parallelize_gptoss
from torchtitan.models.gpt_oss.model import Attention as SinkAttention
from torchtitan.models.gpt_oss.model import GptOssTransformerBlock
from torchtitan.models.gpt_oss.moe import GptOssGroupedExperts, GptOssMoE, swiglu
from torchtitan.models.gpt_oss.state_dict_adapter import GptOssStateDictAdapter

from .family import Family
from .parts import Init, cut, norm, whole

EXPERTS = {
    "mlp1_weight_EGD": "gate_up_proj",
    "mlp1_bias_EG": "gate_up_proj_bias",
    "mlp2_weight_EDF": "down_proj",
    "mlp2_bias_ED": "down_proj_bias",
}
"""torchtitan's names of expert weights → transformers' names."""
OF_EXPERTS = re.compile(r"layers\.(\d+)\.moe\.routed_experts\.inner_experts\.(\w+)")
OF_PUBLISHED_EXPERTS = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\w+)")


class GptOssExperts(GptOssGroupedExperts):
    """torchtitan's experts, fixed. Under tensor parallelism torchtitan adds the last bias once per
    rank: it gets the degree from weights that are not DTensors there (0.3, default backend)."""

    @dataclass(kw_only=True, slots=True)
    class Config(GptOssGroupedExperts.Config):
        pass

    def forward(self, x_RD: torch.Tensor, num_tokens_per_expert_E: torch.Tensor) -> torch.Tensor:
        """Returns the experts' outputs for the tokens routed to them, shape (R, D)."""
        out_RD = super().forward(x_RD, num_tokens_per_expert_E)
        ranks = spmd_mesh_size("tp")
        if ranks == 1 or isinstance(self.mlp2_bias_ED, DTensor):
            return out_RD
        counts = num_tokens_per_expert_E
        rest = (len(x_RD) - counts.sum())[None].to(counts.dtype)
        bias = torch.cat([self.mlp2_bias_ED, self.mlp2_bias_ED.new_zeros(1, out_RD.shape[1])])
        bias_RD = bias.repeat_interleave(
            torch.cat([counts, rest]).long(), dim=0, output_size=len(x_RD)
        )
        return out_RD - (bias_RD * ((ranks - 1) / ranks)).to(out_RD.dtype)


class CpuGptOssExperts(GptOssGroupedExperts):
    """Experts one after the other, in the precision of their weights."""

    @dataclass(kw_only=True, slots=True)
    class Config(GptOssGroupedExperts.Config):
        pass

    def forward(self, x_RD: torch.Tensor, num_tokens_per_expert_E: torch.Tensor) -> torch.Tensor:
        """Returns the experts' outputs for the tokens routed to them, shape (R, D)."""
        first_EGD, first_bias_EG, last_EDF, last_bias_ED = (
            of.to_local() if isinstance(of, DTensor) else of
            for of in (
                self.mlp1_weight_EGD,
                self.mlp1_bias_EG,
                self.mlp2_weight_EDF,
                self.mlp2_bias_ED,
            )
        )
        counts = num_tokens_per_expert_E.tolist()
        results = []
        for e, x in enumerate(x_RD[: sum(counts)].split(counts)):
            hidden = swiglu(F.linear(x, first_EGD[e], first_bias_EG[e]), limit=self.swiglu_limit)
            # Tensor parallelism sums the partial products, each with its share of the bias.
            bias = last_bias_ED[e] / spmd_mesh_size("tp")
            results.append(F.linear(hidden, last_EDF[e], bias))
        return torch.cat([*results, x_RD[sum(counts) :]])


class Adapter(GptOssStateDictAdapter):
    """Extends torchtitan's adapter, which supports only the published four-bit experts."""

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Weights under transformers' names."""
        found = super().to_hf(state_dict)
        for name, weight in state_dict.items():
            if of := OF_EXPERTS.fullmatch(name):
                theirs = f"model.layers.{of[1]}.mlp.experts.{EXPERTS[of[2]]}"
                found[theirs] = weight.transpose(1, 2) if weight.ndim == 3 else weight
        return found

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `to_hf`."""
        ours = {theirs: name for name, theirs in EXPERTS.items()}
        found, rest = {}, {}
        for name, weight in hf_state_dict.items():
            of = OF_PUBLISHED_EXPERTS.fullmatch(name)
            if of and of[2] in ours:
                where = f"layers.{of[1]}.moe.routed_experts.inner_experts.{ours[of[2]]}"
                found[where] = weight.transpose(1, 2) if weight.ndim == 3 else weight
            else:
                rest[name] = weight
        return found | super().from_hf(rest)


def biased(rows: int, columns: int, init: Init, kind: type[Linear] = Linear) -> Linear.Config:
    """A layer from `columns` to `rows` with a bias that begins at zero."""
    return kind.Config(
        in_features=columns,
        out_features=rows,
        bias=True,
        param_init={"weight": init, "bias": nn.init.zeros_},
    )


def gpt_oss_mixture(
    dim: int,
    drawn: Init,
    *,
    count: int,
    active: int,
    ffn: int,
    score: Any,
    normalized: bool,
    balance: float,
    **others: Any,
) -> GptOssMoE.Config:
    """A layer of experts with biases; `others` are settings of experts that gpt-oss lacks."""
    return GptOssMoE.Config(
        num_experts=count,
        load_balance_coeff=balance or None,
        routed_experts=RoutedExperts.Config(
            inner_experts=GptOssGroupedExperts.Config(
                dim=dim,
                hidden_dim=ffn,
                num_experts=count,
                param_init={
                    "mlp1_weight_EGD": drawn,
                    "mlp1_bias_EG": drawn,
                    "mlp2_weight_EDF": drawn,
                    "mlp2_bias_ED": drawn,
                },
            ),
            token_dispatcher=make_token_dispatcher_config(
                num_experts=count, top_k=active, comm_backend="standard", hidden_dim=dim
            ),
        ),
        router=TokenChoiceTopKRouter.Config(
            num_experts=count,
            score_func=score,
            route_norm=normalized,
            gate=biased(count, dim, drawn),
            top_k=active,
        ),
    )


def gpt_oss(
    *,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    window: int,
    experts: dict[str, Any],
    vocab: int,
    tied: bool,
    norm_eps: float,
    rope: dict[str, Any],
) -> Decoder.Config:
    """torchtitan's gpt-oss in any shape."""

    def block(layer: int) -> GptOssTransformerBlock.Config:
        drawn = cut(depth_scaled_std(0.02, layer))
        return GptOssTransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=SinkAttention.Config(
                dim=dim,
                n_heads=heads,
                n_kv_heads=kv_heads,
                head_dim=head_dim,
                qkv_linear=QKVLinear.Config(
                    head_dim=head_dim,
                    wq=biased(heads * head_dim, dim, drawn),
                    wkv=biased(kv_heads * head_dim, dim, drawn),
                ),
                wo=biased(dim, heads * head_dim, drawn, ScaledBiasRowwiseLinear),
                sliding_window_size=window if window and layer % 2 == 0 else None,
                inner_attention=get_attention_config("flex"),
                param_init={"sinks": drawn},
                rope=CosSinRoPE.Config(**rope, truncate=False),
            ),
            moe=gpt_oss_mixture(dim, drawn, **experts),
        )

    return whole(
        GptOssModel.Config,
        [block(layer) for layer in range(layers)],
        partial(nn.init.normal_, std=0.02),
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm(dim, norm_eps),
    )


FAMILY = Family(
    build=gpt_oss,
    parallelize=parallelize_gptoss,
    adapter=GptOssStateDictAdapter,
    fixed={GptOssGroupedExperts: GptOssExperts},
    fixed_adapter=Adapter,
    on_cpu={GptOssGroupedExperts: CpuGptOssExperts},
)
