"""Feed-forward layers that are mixtures of experts.

Names carry shapes: R routed tokens in the order of their experts, E experts, D dimensions, F width
of an expert.
"""
# ruff: noqa: N803 (the names are also torchtitan's)

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.tensor import DTensor
from torchtitan.models.common.config_utils import (
    make_ffn_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
)
from torchtitan.models.common.moe import GroupedExperts, MoE
from torchtitan.models.common.token_dispatcher import AllToAllTokenDispatcher

from ....compiler.values import Architecture
from . import common as c


class CpuExperts(GroupedExperts):
    """Experts one after the other, in the precision of their weights.

    They stand in for torchtitan's grouped product, which is made in bf16, slow on a CPU and coarse.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(GroupedExperts.Config):
        pass

    def forward(self, x_RD: torch.Tensor, num_tokens_per_expert_E: torch.Tensor) -> torch.Tensor:
        """Returns what experts make of the tokens routed to them, shape (R, D)."""
        first, last, gated = (
            w.to_local() if isinstance(w, DTensor) else w
            for w in (self.w1_EFD, self.w2_EDF, self.w3_EFD)
        )
        counts = num_tokens_per_expert_E.tolist()
        results = [
            F.linear(F.silu(F.linear(x, first[e])) * F.linear(x, gated[e]), last[e])
            for e, x in enumerate(x_RD[: sum(counts)].split(counts))
        ]
        return torch.cat([*results, x_RD[sum(counts) :]])


class CpuDispatcher(AllToAllTokenDispatcher):
    """Sends tokens to the ranks of their experts in one message a rank, as uneven as they are.

    torchtitan's exchange takes a form of all-to-all in which gloo wants even parts.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(AllToAllTokenDispatcher.Config):
        pass

    def _dispatch_token_exchange(
        self,
        routed_input_ND: torch.Tensor,
        pg: Any,
        output_splits: list[int],
        input_splits: list[int],
    ) -> torch.Tensor:
        return all_to_all_single_autograd(routed_input_ND, output_splits, input_splits, pg)

    def _combine_token_exchange(
        self,
        routed_output_RD: torch.Tensor,
        pg: Any,
        input_splits: list[int],
        output_splits: list[int],
    ) -> torch.Tensor:
        return all_to_all_single_autograd(routed_output_RD, input_splits, output_splits, pg)


def experts_config(
    architecture: Architecture,
    device: str,
    *,
    gate: c.Init,
    first: c.Init,
    gated: c.Init,
    last: c.Init,
) -> MoE.Config:
    """A layer of experts; `first`, `gated` and `last` draw the weights of its SwiGLU."""
    experts, dim = architecture.experts, architecture.dim
    assert experts
    init = {
        **c.whole(device, first, "w1_EFD"),
        **c.whole(device, last, "w2_EDF"),
        **c.whole(device, gated, "w3_EFD"),
    }
    routed = make_routed_experts_config(
        dim=dim,
        hidden_dim=experts.ffn,
        num_experts=experts.count,
        top_k=experts.active,
        param_init=init,
        comm_backend="standard",
    )
    if device == "cpu":
        routed.inner_experts = CpuExperts.Config(**fields_of(routed.inner_experts))
        routed.token_dispatcher = CpuDispatcher.Config(**fields_of(routed.token_dispatcher))
    return make_moe_config(
        num_experts=experts.count,
        router=make_router_config(
            dim=dim,
            num_experts=experts.count,
            gate_param_init=c.whole(device, gate),
            top_k=experts.active,
            score_func=experts.score,
            route_norm=experts.normalized,
            route_scale=experts.scale,
            num_expert_groups=experts.groups,
            num_limited_groups=experts.groups_used,
        ),
        routed_experts=routed,
        shared_experts=make_ffn_config(
            dim=dim,
            hidden_dim=experts.ffn * experts.shared,
            w1_param_init=c.whole(device, first),
            w2w3_param_init=c.whole(device, gated),
        )
        if experts.shared
        else None,
        load_balance_coeff=experts.balance or None,
    )


def fields_of(config: Any) -> dict[str, Any]:
    """The fields of a configuration, for one of a kind that has the same."""
    return {field.name: getattr(config, field.name) for field in fields(config)}
