"""Parts of models, only torchtitan's configurations: `--emit` copies those that it needs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import spmd_types as spmd
import torch
from torch import nn
from torchtitan.models.common import Embedding, Linear, RMSNorm, SigmoidGatedFeedForward
from torchtitan.models.common.attention import QKVLinear
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_moe_config,
    make_routed_experts_config,
    make_router_config,
    make_token_dispatcher_config,
)
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    dense_param_placement,
)
from torchtitan.models.common.moe import MoE
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.deepseek_v3.mtp import MTPTransformerBlock
from torchtitan.protocols.sharding import ShardingConfig

Init = Callable[[torch.Tensor], object]


def cut(std: float) -> Init:
    """Draws from a normal distribution truncated at ±2."""
    return partial(nn.init.trunc_normal_, std=std)


def log_uniform(weight: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """Draws the logarithms of uniform numbers between a and b, both above 0."""
    with torch.no_grad():
        return weight.uniform_(a, b).log_()


def norm(width: int, eps: float) -> RMSNorm.Config:
    """A norm over `width` elements."""
    return RMSNorm.Config(normalized_shape=width, eps=eps, param_init={"weight": nn.init.ones_})


def linear(rows: int, columns: int, init: Init) -> Linear.Config:
    """A layer from `columns` to `rows`."""
    return Linear.Config(in_features=columns, out_features=rows, param_init={"weight": init})


def whole(
    kind: Callable[..., Decoder.Config],
    layers: list[Any],
    embedding: Init,
    *,
    dim: int,
    vocab: int,
    tied: bool,
    last: Any,
) -> Decoder.Config:
    """A decoder of these layers and a last norm. Tied weights are drawn once, as the output's."""
    std = dim**-0.5
    return kind(
        dim=dim,
        vocab_size=vocab,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab,
            embedding_dim=dim,
            param_init={"weight": skip_param_init if tied else embedding},
        ),
        norm=last,
        lm_head=linear(vocab, dim, partial(nn.init.trunc_normal_, std=std, a=-3 * std, b=3 * std)),
        layers=layers,
    )


def further(block: Any, dim: int, norm_eps: float) -> MTPTransformerBlock.Config:
    """A module around a block that predicts a further token (arXiv:2412.19437 §2.2)."""
    return MTPTransformerBlock.Config(
        attention_norm=block.attention_norm,
        ffn_norm=block.ffn_norm,
        attention=block.attention,
        feed_forward=block.feed_forward,
        moe=block.moe,
        enorm=norm(dim, norm_eps),
        hnorm=norm(dim, norm_eps),
        eh_proj=linear(dim, 2 * dim, cut(0.02)),
        mtp_norm=norm(dim, norm_eps),
    )


def attending(model: Any, backend: str) -> Any:
    """A decoder with another of torchtitan's backends of attention; FlexAttention finds windows in
    masks, and `varlen` is told them."""
    for layer in [*model.layers, *getattr(model, "mtp_layers", [])]:
        if layer.attention is None:  # linear attention
            continue
        inner = get_attention_config(backend)
        window = getattr(layer.attention, "sliding_window_size", None)
        if getattr(layer, "near", False):
            window = model.window
        if window and backend == "varlen":
            inner = replace(inner, window_size=(window - 1, 0))
        layer.attention.inner_attention = inner
    return model


class SharedKeys(QKVLinear):
    """Projections of which each tensor rank makes its own queries, and all keys and values, of
    which it takes one head: there are more ranks than heads of keys (Shazeer, arXiv:1911.02150;
    Shoeybi et al., arXiv:1909.08053, §3, whose ranks have heads of their own)."""

    @dataclass(kw_only=True, slots=True)
    class Config(QKVLinear.Config):
        kv_heads: int

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.kv_heads, self.head = config.kv_heads, 0

    def parallelize(self, parallel_dims: Any) -> None:
        """Shards queries by heads, and keys and values not at all."""
        mesh = parallel_dims.get_mesh("tp")
        self.head = mesh.get_local_rank() * self.kv_heads // mesh.size()
        whole = dense_param_placement(tp=spmd.R)
        for of in (self.wk, self.wv):
            of._sharding_config = ShardingConfig(
                state_shardings={"weight": whole, "bias": whole},
                out_src_shardings=dense_activation_placement(tp=spmd.R),
            )
        super().parallelize(parallel_dims)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns queries, shape (B, L, heads of this rank, H), keys and values, (B, L, 1, H)."""
        xq, xk, xv = self.wq(x), self.wk(x), self.wv(x)
        with spmd.local():
            made = [each.view(*each.shape[:2], -1, self.head_dim) for each in (xq, xk, xv)]
            one = slice(self.head, self.head + 1)
            return made[0], made[1][:, :, one], made[2][:, :, one]


def sharing(model: Any, ranks: int) -> Any:
    """A decoder whose tensor ranks, of which there are more than heads of keys, share these."""
    for layer in [*model.layers, *getattr(model, "mtp_layers", [])]:
        of, attention = layer.attention.qkv_linear, layer.attention
        attention.qkv_linear = SharedKeys.Config(
            head_dim=of.head_dim, wq=of.wq, wkv=of.wkv, kv_heads=attention.n_kv_heads
        )
        attention.n_kv_heads = ranks
    return model


def dispatching(model: Any, backend: str) -> Any:
    """A decoder whose tokens reach their experts by another of torchtitan's dispatchers."""
    for layer in [*model.layers, *getattr(model, "mtp_layers", [])]:
        if layer.moe is not None:
            experts = layer.moe.routed_experts
            experts.token_dispatcher = make_token_dispatcher_config(
                num_experts=experts.token_dispatcher.num_experts,
                top_k=experts.token_dispatcher.top_k,
                comm_backend=backend,
                hidden_dim=model.dim,
            )
    return model


def mixture(
    dim: int,
    gate: Init,
    first: Init,
    gated: Init,
    last: Init,
    *,
    count: int,
    active: int,
    ffn: int,
    shared: int,
    groups: int | None,
    groups_used: int | None,
    score: Any,
    normalized: bool,
    scale: float,
    balance: float,
    dense: int,
    shared_gate: bool = False,
) -> MoE.Config:
    """A layer of experts. `first`, `gated` and `last` initialize the experts' SwiGLU; the first
    `dense` layers have no experts."""
    beside = None
    if shared:
        beside = make_ffn_config(
            dim=dim,
            hidden_dim=ffn * shared,
            w1_param_init={"weight": first},
            w2w3_param_init={"weight": gated},
        )
    if beside is not None and shared_gate:
        beside = SigmoidGatedFeedForward.Config(
            w1=beside.w1, w2=beside.w2, w3=beside.w3, gate=linear(1, dim, gate)
        )
    return make_moe_config(
        num_experts=count,
        router=make_router_config(
            dim=dim,
            num_experts=count,
            gate_param_init={"weight": gate},
            top_k=active,
            score_func=score,
            route_norm=normalized,
            route_scale=scale,
            num_expert_groups=groups,
            num_limited_groups=groups_used,
        ),
        routed_experts=make_routed_experts_config(
            dim=dim,
            hidden_dim=ffn,
            num_experts=count,
            top_k=active,
            comm_backend="standard",
            param_init={"w1_EFD": first, "w2_EDF": last, "w3_EFD": gated},
        ),
        shared_experts=beside,
        load_balance_coeff=balance or None,
    )
