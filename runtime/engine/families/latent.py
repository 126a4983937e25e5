"""Blocks with latent attention, only torchtitan's configurations: `--emit` copies those that it
needs."""

from typing import Any

from torchtitan.models.common import ComplexRoPE
from torchtitan.models.common.config_utils import get_attention_config, make_ffn_config
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.deepseek_v3.model import Attention as LatentAttention
from torchtitan.models.deepseek_v3.model import DeepSeekV3TransformerBlock

from .parts import Init, cut, linear, mixture, norm


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
    eps: float | None = None,
    mscale: float = 1.0,
) -> LatentAttention.Config:
    """Attention through latents of `queries` (0: queries come from the hidden state) and `keys`
    elements. With YaRN by a factor s, scores are multiplied by (0.1 `mscale` ln s + 1)²."""
    drawn = cut(0.02)
    width, small = heads * (plain + rotary), norm_eps if eps is None else eps
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
        q_norm=norm(queries or 1, small),
        wkv_a=linear(keys + rotary, dim, drawn),
        kv_norm=norm(keys, small),
        wkv_b=linear(heads * (plain + values), keys, drawn),
        wo=linear(dim, heads * values, scaled),
        inner_attention=get_attention_config("flex"),
        rope=ComplexRoPE.Config(**rope),
        mscale=mscale,
    )


def latent_block(
    layer: int,
    *,
    dim: int,
    heads: int,
    ffn: int,
    norm_eps: float,
    rope: dict[str, Any],
    latent: dict[str, Any],
    experts: dict[str, Any],
) -> DeepSeekV3TransformerBlock.Config:
    """A layer, counted from 0, with experts after the first `dense` ones."""
    drawn, scaled = cut(0.02), cut(depth_scaled_std(0.02, layer))
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
