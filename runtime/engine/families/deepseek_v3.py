"""DeepSeek-V3 as torchtitan builds it: latent attention, and experts."""

from typing import Any

from torch import nn
from torchtitan.models.common import ComplexRoPE
from torchtitan.models.common.config_utils import get_attention_config, make_ffn_config
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3
from torchtitan.models.deepseek_v3.model import Attention as LatentAttention
from torchtitan.models.deepseek_v3.model import DeepSeekV3TransformerBlock
from torchtitan.models.deepseek_v3.state_dict_adapter import DeepSeekV3StateDictAdapter

from .family import Family
from .parts import Init, cut, linear, mixture, norm, whole


def latent_attention(
    dim: int,
    heads: int,
    norm_eps: float,
    rope: dict[str, Any],
    scaled: Init,
    *,
    queries: int,
    keys: int,
    plain: int,
    rotary: int,
    values: int,
) -> LatentAttention.Config:
    """Attention through latents of `queries` (0: queries come from the hidden state) and `keys`
    elements."""
    drawn = cut(0.02)
    width = heads * (plain + rotary)
    return LatentAttention.Config(
        dim=dim,
        n_heads=heads,
        q_lora_rank=queries,
        kv_lora_rank=keys,
        qk_nope_head_dim=plain,
        qk_rope_head_dim=rotary,
        v_head_dim=values,
        wq=None if queries else linear(width, dim, drawn),
        wq_a=linear(queries, dim, drawn) if queries else None,
        wq_b=linear(width, queries, drawn) if queries else None,
        # torchtitan requires it even if there is no latent to normalize.
        q_norm=norm(queries or 1, norm_eps),
        wkv_a=linear(keys + rotary, dim, drawn),
        kv_norm=norm(keys, norm_eps),
        wkv_b=linear(heads * (plain + values), keys, drawn),
        wo=linear(dim, heads * values, scaled),
        inner_attention=get_attention_config("flex"),
        rope=ComplexRoPE.Config(**rope),
    )


def deepseek_v3(
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
    """torchtitan's DeepSeek-V3 in any shape."""
    drawn = cut(0.02)

    def block(layer: int) -> DeepSeekV3TransformerBlock.Config:
        scaled = cut(depth_scaled_std(0.02, layer))
        mixed = layer >= experts["dense"]
        return DeepSeekV3TransformerBlock.Config(
            attention_norm=norm(dim, norm_eps),
            ffn_norm=norm(dim, norm_eps),
            attention=latent_attention(dim, heads, norm_eps, rope, scaled, **latent),
            feed_forward=None
            if mixed
            else make_ffn_config(
                dim=dim,
                hidden_dim=ffn,
                w1_param_init={"weight": drawn},
                w2w3_param_init={"weight": scaled},
            ),
            moe=mixture(dim, scaled, drawn, scaled, scaled, **experts) if mixed else None,
        )

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
    build=deepseek_v3, parallelize=parallelize_deepseekv3, adapter=DeepSeekV3StateDictAdapter
)
