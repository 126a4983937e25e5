"""Architectures as torchtitan builds them and as transformers reads them."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.param_init import depth_scaled_std, skip_param_init
from torchtitan.models.llama3 import Llama3Model, parallelize_llama
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.module import Module

from ...compiler.plan import Architecture
from ..errors import RunError
from .attention import DocumentAttention
from .heads import RecordModel, TokenHead

Init = Callable[[torch.Tensor], object]


Head = Literal["logits", "tokens", "score"]
"""What a model says: logits of all places; of some places, the cross-entropy of a token or a
score."""


def model_spec(
    architecture: Architecture, device: str, seq_len: int, head: Head = "logits"
) -> ModelSpec:
    """The architecture as torchtitan's `ModelSpec`.

    Args:
        device: "cpu", or the name of a GPU.
        seq_len: the longest sequence, in tokens.
        head: with "score", there is one output in place of the vocabulary's, and weights are not
            tied.

    Raises:
        RunError: no such family.
    """
    return _family(architecture)[0](architecture, device, seq_len, head)


def hf_config(architecture: Architecture, *, score: bool = False) -> dict[str, Any]:
    """The architecture as the `config.json` of a Hugging Face model, or of a classifier with one
    label where it has a head of one output.

    Raises:
        RunError: no such family.
    """
    return _family(architecture)[1](architecture, score)


def _family(architecture: Architecture) -> tuple[Callable, Callable]:
    if architecture.family not in FAMILIES:
        raise RunError(
            f"the engine has no model family `{architecture.family}`",
            f"the families are: {', '.join(FAMILIES)}",
        )
    return FAMILIES[architecture.family]


def _llama3(architecture: Architecture, device: str, seq_len: int, head: Head) -> ModelSpec:
    dim = architecture.dim
    weight = _init(device, partial(nn.init.trunc_normal_, std=0.02))
    head_std = dim**-0.5

    def norm() -> RMSNorm.Config:
        ones = {"weight": nn.init.ones_}
        return RMSNorm.Config(normalized_shape=dim, eps=architecture.norm_eps, param_init=ones)

    rope = ComplexRoPE.Config(
        dim=architecture.head_dim,
        max_seq_len=seq_len,
        theta=architecture.rope_theta,
        scaling=architecture.rope_scaling,
    )
    layers = []
    for layer in range(architecture.layers):
        scaled = _init(device, partial(nn.init.trunc_normal_, std=depth_scaled_std(0.02, layer)))
        attention = make_gqa_config(
            dim=dim,
            n_heads=architecture.heads,
            n_kv_heads=architecture.kv_heads,
            head_dim=architecture.head_dim,
            wqkv_param_init=weight,
            wo_param_init=scaled,
            inner_attention=_inner_attention(device),
            rope=rope,
        )
        ffn = make_ffn_config(
            dim=dim, hidden_dim=architecture.ffn, w1_param_init=weight, w2w3_param_init=scaled
        )
        layers.append(
            Llama3TransformerBlock.Config(
                attention_norm=norm(), ffn_norm=norm(), attention=attention, feed_forward=ffn
            )
        )
    tied = architecture.tied and head != "score"
    # Tied weights are drawn once, as the output's.
    embedding = {"weight": skip_param_init} if tied else _init(device, nn.init.normal_)
    output = partial(nn.init.trunc_normal_, std=head_std, a=-3 * head_std, b=3 * head_std)
    linear = TokenHead if head == "tokens" else Linear
    model = (Llama3Model if head == "logits" else RecordModel).Config(
        dim=dim,
        vocab_size=architecture.vocab,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=architecture.vocab, embedding_dim=dim, param_init=embedding
        ),
        norm=norm(),
        lm_head=linear.Config(
            in_features=dim,
            out_features=1 if head == "score" else architecture.vocab,
            param_init=_init(device, output),
        ),
        layers=layers,
    )
    return ModelSpec(
        name=architecture.family,
        flavor=architecture.size or "custom",
        model=model,
        parallelize_fn=_summing(parallelize_llama) if device == "cpu" else parallelize_llama,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=None,
        state_dict_adapter=Llama3StateDictAdapter,
    )


def _llama3_hf(architecture: Architecture, score: bool) -> dict[str, Any]:
    scaling = {
        "none": {"rope_type": "default"},
        # The factors that torchtitan's rope has for "llama", those of Llama 3.1.
        "llama": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }[architecture.rope_scaling]
    classes = "LlamaForSequenceClassification" if score else "LlamaForCausalLM"
    return {
        "architectures": [classes],
        "model_type": "llama",
        "hidden_size": architecture.dim,
        "intermediate_size": architecture.ffn,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "vocab_size": architecture.vocab,
        "max_position_embeddings": architecture.context,
        "rms_norm_eps": architecture.norm_eps,
        "rope_theta": architecture.rope_theta,
        "rope_parameters": {"rope_theta": architecture.rope_theta, **scaling},
        "tie_word_embeddings": architecture.tied and not score,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **({"num_labels": 1} if score else {}),
    }


FAMILIES: dict[str, tuple[Callable, Callable]] = {"llama3": (_llama3, _llama3_hf)}
"""family → (`ModelSpec` of an architecture, `config.json` of an architecture)."""


def _inner_attention(device: str) -> Module.Config:
    return DocumentAttention.Config() if device == "cpu" else get_attention_config("flex")


def _init(device: str, init: Init) -> dict[str, Init]:
    """`init` for a layer's weight, with the same result however the weight is sharded.

    On the CPU, DTensor draws each shard from the same random numbers, as if it were the first.
    """
    if device != "cpu":
        return {"weight": init}

    def whole(weight: torch.Tensor) -> None:
        if not isinstance(weight, DTensor):
            init(weight)
            return
        full = torch.empty(weight.shape, dtype=weight.dtype)
        init(full)
        weight.copy_(
            distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None)
        )

    return {"weight": whole}


def _summing(parallelize: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """torchtitan has FSDP scale gradients while it reduces them, which gloo cannot."""

    @wraps(parallelize)
    def wrapped(model: nn.Module, **kwargs: Any) -> nn.Module:
        model = parallelize(model, **kwargs)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model

    return wrapped
