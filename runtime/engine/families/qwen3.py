"""Qwen3 as torchtitan builds it: decoders with normed queries and keys, dense or with experts."""

from functools import partial
from typing import Any

from torch import nn
from torchtitan.models.common import CosSinRoPE
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.qwen3 import Qwen3Model, parallelize_qwen3
from torchtitan.models.qwen3.model import Qwen3TransformerBlock
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter

from .family import Family
from .parts import mixture, norm, whole


def qwen3(
    *,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    experts: dict[str, Any] | None,
    vocab: int,
    tied: bool,
    norm_eps: float,
    rope: dict[str, Any],
) -> Decoder.Config:
    """torchtitan's Qwen3 in any shape, dense or with experts."""
    drawn = partial(nn.init.normal_, std=0.02)
    last = partial(nn.init.normal_, std=0.02 / (2 * layers) ** 0.5)
    weight = {"weight": drawn}

    def block(layer: int) -> Qwen3TransformerBlock.Config:
        mixed = experts is not None and layer >= experts["dense"]
        return Qwen3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=make_gqa_config(
                dim=dim,
                n_heads=heads,
                n_kv_heads=kv_heads,
                head_dim=head_dim,
                wqkv_param_init=weight,
                wo_param_init={"weight": last} if experts else weight,
                inner_attention=get_attention_config("flex"),
                rope=CosSinRoPE.Config(**rope),
                qk_norm=norm(head_dim, norm_eps),
            ),
            feed_forward=None
            if mixed
            else make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init=weight, w2w3_param_init=weight
            ),
            moe=mixture(dim, drawn, drawn, drawn, last, **experts) if experts and mixed else None,
        )

    return whole(
        Qwen3Model.Config,
        [block(layer) for layer in range(layers)],
        drawn,
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm(dim, norm_eps),
    )


FAMILY = Family(build=qwen3, parallelize=parallelize_qwen3, adapter=Qwen3StateDictAdapter)
