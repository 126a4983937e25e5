"""Llama 3: dense decoders with grouped-query attention (arXiv:2407.21783 §3.2)."""

from typing import Any

from torch import nn
from torchtitan.models.common import ComplexRoPE
from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
from torchtitan.models.common.param_init import depth_scaled_std
from torchtitan.models.llama3 import Llama3Model, parallelize_llama
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from ....compiler.torchtitan import rope
from ....compiler.values import Architecture
from . import common as c


def _model_spec(architecture: Architecture, device: str, seq_len: int, head: c.Head) -> ModelSpec:
    dim = architecture.dim
    weight = c.whole(device, c.normal(0.02))
    layers = []
    for layer in range(architecture.layers):
        scaled = c.whole(device, c.normal(depth_scaled_std(0.02, layer)))
        layers.append(
            Llama3TransformerBlock.Config(
                attention_norm=c.norm(architecture, dim),
                ffn_norm=c.norm(architecture, dim),
                attention=make_gqa_config(
                    dim=dim,
                    n_heads=architecture.heads,
                    n_kv_heads=architecture.kv_heads,
                    head_dim=architecture.head_dim,
                    wqkv_param_init=weight,
                    wo_param_init=scaled,
                    inner_attention=c.inner_attention(device),
                    rope=ComplexRoPE.Config(**rope(architecture, seq_len)),
                ),
                feed_forward=make_ffn_config(
                    dim=dim,
                    hidden_dim=architecture.ffn,
                    w1_param_init=weight,
                    w2w3_param_init=scaled,
                ),
            )
        )
    model = c.decoder(Llama3Model, architecture, device, head, layers, nn.init.normal_)
    return c.spec(architecture, device, model, parallelize_llama, Llama3StateDictAdapter)


def _hf_config(architecture: Architecture) -> dict[str, Any]:
    return {
        "name": "Llama",
        "model_type": "llama",
        **c.hf_shape(architecture),
        "head_dim": architecture.head_dim,
        "mlp_bias": False,
    }


FAMILY = c.Family(_model_spec, _hf_config)
