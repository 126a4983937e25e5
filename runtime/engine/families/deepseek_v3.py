"""DeepSeek-V3: attention through latents, and experts (arXiv:2412.19437 §2.1)."""

from typing import Any

from torch import nn
from torchtitan.models.common import ComplexRoPE
from torchtitan.models.common.config_utils import make_ffn_config
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3
from torchtitan.models.deepseek_v3.model import Attention, DeepSeekV3TransformerBlock
from torchtitan.models.deepseek_v3.state_dict_adapter import DeepSeekV3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from ....compiler.architectures import dense_layers
from ....compiler.torchtitan import rope
from ....compiler.values import Architecture
from . import common as c
from .experts import experts_config


def _attention(
    architecture: Architecture, device: str, seq_len: int, scaled: c.Init
) -> Attention.Config:
    latent, dim, heads = architecture.latent, architecture.dim, architecture.heads
    assert latent
    drawn = c.normal(0.02)
    queries = heads * (latent.plain + latent.rotary)
    through = latent.queries
    return Attention.Config(
        dim=dim,
        n_heads=heads,
        q_lora_rank=through,
        kv_lora_rank=latent.keys,
        qk_nope_head_dim=latent.plain,
        qk_rope_head_dim=latent.rotary,
        v_head_dim=latent.values,
        wq=None if through else c.linear(device, queries, dim, drawn),
        wq_a=c.linear(device, through, dim, drawn) if through else None,
        wq_b=c.linear(device, queries, through, drawn) if through else None,
        # torchtitan wants it said even where there is no latent to norm.
        q_norm=c.norm(architecture, through or 1),
        wkv_a=c.linear(device, latent.keys + latent.rotary, dim, drawn),
        kv_norm=c.norm(architecture, latent.keys),
        wkv_b=c.linear(device, heads * (latent.plain + latent.values), latent.keys, drawn),
        wo=c.linear(device, dim, heads * latent.values, scaled),
        inner_attention=c.inner_attention(device),
        rope=ComplexRoPE.Config(**rope(architecture, seq_len)),
    )


def _model_spec(architecture: Architecture, device: str, seq_len: int, head: c.Head) -> ModelSpec:
    dim = architecture.dim
    drawn = c.normal(0.02)
    layers = []
    for layer in range(architecture.layers):
        scaled = c.normal(depth_scaled_std(0.02, layer))
        dense = layer < dense_layers(architecture)
        layers.append(
            DeepSeekV3TransformerBlock.Config(
                attention_norm=c.norm(architecture, dim),
                ffn_norm=c.norm(architecture, dim),
                attention=_attention(architecture, device, seq_len, scaled),
                feed_forward=make_ffn_config(
                    dim=dim,
                    hidden_dim=architecture.ffn,
                    w1_param_init=c.whole(device, drawn),
                    w2w3_param_init=c.whole(device, scaled),
                )
                if dense
                else None,
                moe=None
                if dense
                else experts_config(
                    architecture, device, gate=scaled, first=drawn, gated=scaled, last=scaled
                ),
            )
        )
    model = c.decoder(DeepSeekV3Model, architecture, device, head, layers, nn.init.normal_)
    return c.spec(architecture, device, model, parallelize_deepseekv3, DeepSeekV3StateDictAdapter)


def _hf_config(architecture: Architecture) -> dict[str, Any]:
    latent, experts = architecture.latent, architecture.experts
    assert latent
    assert experts
    shape = c.hf_shape(architecture)
    if architecture.rope_scaling == "yarn":
        # Both, of which transformers sharpens the softmax by the second, and turns by their ratio.
        del shape["rope_parameters"]["attention_factor"]
        shape["rope_parameters"] |= {"mscale": 1.0, "mscale_all_dim": 1.0}
    return {
        "name": "DeepseekV3",
        "model_type": "deepseek_v3",
        **shape,
        "q_lora_rank": latent.queries or None,
        "kv_lora_rank": latent.keys,
        "qk_nope_head_dim": latent.plain,
        "qk_rope_head_dim": latent.rotary,
        "v_head_dim": latent.values,
        "first_k_dense_replace": dense_layers(architecture),
        "n_routed_experts": experts.count,
        "n_shared_experts": experts.shared,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "n_group": experts.groups or 1,
        "topk_group": experts.groups_used or 1,
        "norm_topk_prob": experts.normalized,
        "routed_scaling_factor": experts.scale,
        "rope_interleave": True,
        "num_nextn_predict_layers": 0,
    }


FAMILY = c.Family(_model_spec, _hf_config)
