"""DeepSeek-V2 of torchtitan's parts: latent attention, and experts chosen from the best groups."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.moe import TokenChoiceTopKRouter
from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3
from torchtitan.models.deepseek_v3.state_dict_adapter import DeepSeekV3StateDictAdapter

from .family import Family
from .latent import latent_block
from .parts import norm, whole


class GreedyGroupsRouter(TokenChoiceTopKRouter):
    """A router for which the score of a group of experts is that of its best one
    (arXiv:2405.04434 §2.2.2; DeepSeek-V3 adds up the best two, as torchtitan does)."""

    @dataclass(kw_only=True, slots=True)
    class Config(TokenChoiceTopKRouter.Config):
        """Settings as torchtitan's."""

    def _get_node_limited_routing_scores(
        self,
        scores_for_choice_BLE: torch.Tensor,  # noqa: N803 torchtitan's name
    ) -> torch.Tensor:
        """Scores, shape (batch, length, experts), with -inf for the experts of other groups."""
        assert self.num_expert_groups
        assert self.num_limited_groups
        grouped = scores_for_choice_BLE.unflatten(-1, (self.num_expert_groups, -1))
        best = grouped.amax(dim=-1)
        chosen = best.topk(self.num_limited_groups, dim=-1, sorted=False).indices
        others = torch.ones_like(best, dtype=torch.bool).scatter_(-1, chosen, False)
        return grouped.masked_fill(others.unsqueeze(-1), float("-inf")).flatten(-2)


def greedy(router: TokenChoiceTopKRouter.Config) -> GreedyGroupsRouter.Config:
    """The same router with DeepSeek-V2's scores of groups."""
    values = {field.name: getattr(router, field.name) for field in fields(router)}
    return GreedyGroupsRouter.Config(**values)


def deepseek_v2(
    *,
    layers: int,
    dim: int,
    heads: int,
    ffn: int,
    latent: dict[str, Any],
    experts: dict[str, Any],
    vocab: int,
    tied: bool,
    norm_eps: float,
    rope: dict[str, Any],
) -> Decoder.Config:
    """DeepSeek-V2 in any shape. Its YaRN sharpens scores by 0.0707 ln s + 1 (§3.1.4)."""
    shared = {"dim": dim, "heads": heads, "ffn": ffn, "norm_eps": norm_eps, "rope": rope}

    def block(layer: int) -> Any:
        made = latent_block(layer, latent={**latent, "mscale": 0.707}, experts=experts, **shared)
        if made.moe is not None:
            made.moe.router = greedy(made.moe.router)
        return made

    return whole(
        DeepSeekV3Model.Config,
        [block(layer) for layer in range(layers)],
        nn.init.normal_,
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm(dim, norm_eps),
    )


FAMILY = Family(
    build=deepseek_v2, parallelize=parallelize_deepseekv3, adapter=DeepSeekV3StateDictAdapter
)
