"""Llama 3 as torchtitan builds it: dense decoders with grouped-query attention."""

from typing import Any

from torch import nn
from torchtitan.models.common import ComplexRoPE
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.llama3 import Llama3Model, parallelize_llama
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter

from .family import Family
from .parts import cut, norm, whole


def llama3(
    *,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    ffn: int,
    vocab: int,
    tied: bool,
    norm_eps: float,
    rope: dict[str, Any],
) -> Decoder.Config:
    """torchtitan's Llama 3 in any shape."""
    weight = {"weight": cut(0.02)}

    def block(layer: int) -> Llama3TransformerBlock.Config:
        scaled = {"weight": cut(depth_scaled_std(0.02, layer))}
        return Llama3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=make_gqa_config(
                dim=dim,
                n_heads=heads,
                n_kv_heads=kv_heads,
                head_dim=head_dim,
                wqkv_param_init=weight,
                wo_param_init=scaled,
                inner_attention=get_attention_config("flex"),
                rope=ComplexRoPE.Config(**rope),
            ),
            feed_forward=make_ffn_config(
                dim=dim, hidden_dim=ffn, w1_param_init=weight, w2w3_param_init=scaled
            ),
        )

    return whole(
        Llama3Model.Config,
        [block(layer) for layer in range(layers)],
        nn.init.normal_,
        dim=dim,
        vocab=vocab,
        tied=tied,
        last=norm(dim, norm_eps),
    )


FAMILY = Family(build=llama3, parallelize=parallelize_llama, adapter=Llama3StateDictAdapter)
