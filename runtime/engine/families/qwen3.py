"""Qwen3: decoders with normed queries and keys, dense or with experts (arXiv:2505.09388 §2)."""

from functools import partial
from typing import Any

from torch import nn
from torchtitan.models.common import CosSinRoPE
from torchtitan.models.common.config_utils import make_ffn_config, make_gqa_config
from torchtitan.models.qwen3 import Qwen3Model, parallelize_qwen3
from torchtitan.models.qwen3.model import Qwen3TransformerBlock
from torchtitan.models.qwen3.state_dict_adapter import Qwen3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from ....compiler.architectures import dense_layers
from ....compiler.torchtitan import rope
from ....compiler.values import Architecture
from . import common as c
from .experts import experts_config


def _model_spec(architecture: Architecture, device: str, seq_len: int, head: c.Head) -> ModelSpec:
    dim = architecture.dim
    drawn = partial(nn.init.normal_, std=0.02)
    last = partial(nn.init.normal_, std=0.02 / (2 * architecture.layers) ** 0.5)
    weight = c.whole(device, drawn)
    mixed = architecture.experts is not None
    layers = []
    for layer in range(architecture.layers):
        dense = layer < dense_layers(architecture)
        layers.append(
            Qwen3TransformerBlock.Config(
                attention_norm=c.norm(architecture, dim),
                ffn_norm=c.norm(architecture, dim),
                attention=make_gqa_config(
                    dim=dim,
                    n_heads=architecture.heads,
                    n_kv_heads=architecture.kv_heads,
                    head_dim=architecture.head_dim,
                    wqkv_param_init=weight,
                    wo_param_init=c.whole(device, last) if mixed else weight,
                    inner_attention=c.inner_attention(device),
                    rope=CosSinRoPE.Config(**rope(architecture, seq_len)),
                    qk_norm=c.norm(architecture, architecture.head_dim),
                ),
                feed_forward=make_ffn_config(
                    dim=dim,
                    hidden_dim=architecture.ffn,
                    w1_param_init=weight,
                    w2w3_param_init=weight,
                )
                if dense
                else None,
                moe=None
                if dense
                else experts_config(
                    architecture, device, gate=drawn, first=drawn, gated=drawn, last=last
                ),
            )
        )
    model = c.decoder(Qwen3Model, architecture, device, head, layers, drawn)
    return c.spec(architecture, device, model, parallelize_qwen3, Qwen3StateDictAdapter)


def _hf_config(architecture: Architecture) -> dict[str, Any]:
    shape = c.hf_shape(architecture) | {"head_dim": architecture.head_dim}
    experts = architecture.experts
    if experts is None:
        return {"name": "Qwen3", "model_type": "qwen3", **shape}
    return {
        "name": "Qwen3Moe",
        "model_type": "qwen3_moe",
        **shape,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "norm_topk_prob": experts.normalized,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(range(dense_layers(architecture))),
    }


FAMILY = c.Family(_model_spec, _hf_config)
