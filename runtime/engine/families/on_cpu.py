"""Replacements of torchtitan's classes on CPUs: attention and experts.

Names carry shapes: R routed tokens in the order of their experts, E experts, D dimensions, F width
of an expert.
"""
# ruff: noqa: N803 (the names are also torchtitan's)

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.tensor import DTensor
from torchtitan.models.common.attention import FlexAttention
from torchtitan.models.common.moe import GroupedExperts
from torchtitan.models.common.token_dispatcher import AllToAllTokenDispatcher

from ..attention.documents import DocumentAttention


class CpuExperts(GroupedExperts):
    """Experts one after the other, in the precision of their weights.

    Replaces torchtitan's grouped product, which uses bf16 and is slow and imprecise on a CPU.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(GroupedExperts.Config):
        pass

    def forward(self, x_RD: torch.Tensor, num_tokens_per_expert_E: torch.Tensor) -> torch.Tensor:
        """Returns the experts' outputs for the tokens routed to them, shape (R, D)."""
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
    """Sends tokens to the ranks of their experts in one message per rank, of uneven sizes.

    torchtitan's exchange uses a form of all-to-all for which gloo requires even sizes.
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


STAND_INS: dict[type, type] = {
    FlexAttention: DocumentAttention,
    GroupedExperts: CpuExperts,
    AllToAllTokenDispatcher: CpuDispatcher,
}
"""torchtitan's classes → their replacements on CPUs."""
