"""gpt-oss: windows in every other layer, sinks, biases, and experts (arXiv:2508.10925 §2).

Names carry shapes: R routed tokens in the order of their experts, E experts, D dimensions, F width
of an expert, G twice that.
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
from torchtitan.models.common.config_utils import make_token_dispatcher_config
from torchtitan.models.common.linear import ScaledBiasRowwiseLinear
from torchtitan.models.common.moe import RoutedExperts, TokenChoiceTopKRouter
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.gpt_oss import GptOssModel, parallelize_gptoss
from torchtitan.models.gpt_oss.model import Attention, GptOssTransformerBlock
from torchtitan.models.gpt_oss.moe import GptOssGroupedExperts, GptOssMoE, swiglu
from torchtitan.models.gpt_oss.state_dict_adapter import GptOssStateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from ....compiler.architectures import windowed
from ....compiler.torchtitan import rope
from ....compiler.values import Architecture
from . import common as c
from .experts import CpuDispatcher, fields_of

EXPERTS = {
    "mlp1_weight_EGD": "gate_up_proj",
    "mlp1_bias_EG": "gate_up_proj_bias",
    "mlp2_weight_EDF": "down_proj",
    "mlp2_bias_ED": "down_proj_bias",
}
"""torchtitan's names of the weights of experts → transformers'."""
OF_EXPERTS = re.compile(r"layers\.(\d+)\.moe\.routed_experts\.inner_experts\.(\w+)")
OF_PUBLISHED_EXPERTS = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\w+)")


class GptOssExperts(GptOssGroupedExperts):
    """torchtitan's, which under tensor parallelism adds the last bias once a rank: it looks for the
    degree in weights that are no DTensors there (0.3, with its default backend)."""

    @dataclass(kw_only=True, slots=True)
    class Config(GptOssGroupedExperts.Config):
        pass

    def forward(self, x_RD: torch.Tensor, num_tokens_per_expert_E: torch.Tensor) -> torch.Tensor:
        """Returns what experts make of the tokens routed to them, shape (R, D)."""
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
        """Returns what experts make of the tokens routed to them, shape (R, D)."""
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
            # Tensor parallelism adds up the parts of the product, each with its part of the bias.
            bias = last_bias_ED[e] / spmd_mesh_size("tp")
            results.append(F.linear(hidden, last_EDF[e], bias))
        return torch.cat([*results, x_RD[sum(counts) :]])


class Adapter(GptOssStateDictAdapter):
    """torchtitan's, which knows the experts only as they are published, in four bits."""

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Weights by transformers' names."""
        found = super().to_hf(state_dict)
        for name, weight in state_dict.items():
            if of := OF_EXPERTS.fullmatch(name):
                theirs = f"model.layers.{of[1]}.mlp.experts.{EXPERTS[of[2]]}"
                found[theirs] = weight.transpose(1, 2) if weight.ndim == 3 else weight
        return found

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The way back."""
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


def _linear(
    device: str, rows: int, columns: int, init: c.Init, kind: type[Linear] = Linear
) -> Linear.Config:
    """A layer from `columns` to `rows` with a bias, which begins at nothing."""
    return kind.Config(
        in_features=columns,
        out_features=rows,
        bias=True,
        param_init={**c.whole(device, init), "bias": nn.init.zeros_},
    )


def _attention(
    architecture: Architecture, device: str, seq_len: int, layer: int, drawn: c.Init
) -> Attention.Config:
    dim, heads, width = architecture.dim, architecture.heads, architecture.head_dim
    return Attention.Config(
        dim=dim,
        n_heads=heads,
        n_kv_heads=architecture.kv_heads,
        head_dim=width,
        qkv_linear=QKVLinear.Config(
            head_dim=width,
            wq=_linear(device, heads * width, dim, drawn),
            wkv=_linear(device, architecture.kv_heads * width, dim, drawn),
        ),
        wo=_linear(device, dim, heads * width, drawn, ScaledBiasRowwiseLinear),
        sliding_window_size=architecture.window if windowed(architecture, layer) else None,
        inner_attention=c.inner_attention(device),
        param_init=c.whole(device, drawn, "sinks"),
        rope=CosSinRoPE.Config(**rope(architecture, seq_len), truncate=False),
    )


def _experts(architecture: Architecture, device: str, drawn: c.Init) -> GptOssMoE.Config:
    experts, dim = architecture.experts, architecture.dim
    assert experts
    kind = CpuGptOssExperts if device == "cpu" else GptOssExperts
    dispatcher = make_token_dispatcher_config(
        num_experts=experts.count, top_k=experts.active, comm_backend="standard", hidden_dim=dim
    )
    if device == "cpu":
        dispatcher = CpuDispatcher.Config(**fields_of(dispatcher))
    return GptOssMoE.Config(
        num_experts=experts.count,
        load_balance_coeff=experts.balance or None,
        routed_experts=RoutedExperts.Config(
            inner_experts=kind.Config(
                dim=dim,
                hidden_dim=experts.ffn,
                num_experts=experts.count,
                param_init=c.whole(device, drawn, *EXPERTS),
            ),
            token_dispatcher=dispatcher,
        ),
        router=TokenChoiceTopKRouter.Config(
            num_experts=experts.count,
            score_func=experts.score,
            route_norm=experts.normalized,
            gate=_linear(device, experts.count, dim, drawn),
            top_k=experts.active,
        ),
    )


def _model_spec(architecture: Architecture, device: str, seq_len: int, head: c.Head) -> ModelSpec:
    layers = []
    for layer in range(architecture.layers):
        drawn = c.normal(depth_scaled_std(0.02, layer))
        layers.append(
            GptOssTransformerBlock.Config(
                attention_norm=c.norm(architecture, architecture.dim),
                ffn_norm=c.norm(architecture, architecture.dim),
                attention=_attention(architecture, device, seq_len, layer, drawn),
                moe=_experts(architecture, device, drawn),
            )
        )
    embedding = partial(nn.init.normal_, std=0.02)
    model = c.decoder(GptOssModel, architecture, device, head, layers, embedding)
    return c.spec(architecture, device, model, parallelize_gptoss, Adapter)


def _hf_config(architecture: Architecture) -> dict[str, Any]:
    experts = architecture.experts
    assert experts
    shape = c.hf_shape(architecture)
    if architecture.rope_scaling == "yarn":
        # transformers turns and sharpens the softmax as published, where nothing is said of it.
        del shape["rope_parameters"]["attention_factor"]
        shape["rope_parameters"] |= {"truncate": False}
    return {
        "name": "GptOss",
        "model_type": "gpt_oss",
        **shape,
        "head_dim": architecture.head_dim,
        "intermediate_size": experts.ffn,
        "attention_bias": True,
        # transformers wants it said even where no layer has one.
        "sliding_window": architecture.window or architecture.context,
        "layer_types": [
            "sliding_attention" if windowed(architecture, layer) else "full_attention"
            for layer in range(architecture.layers)
        ],
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
    }


FAMILY = c.Family(_model_spec, _hf_config)
