"""What families are built from."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torchtitan.components.optimizer import register_moe_load_balancing_hook
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import get_attention_config
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.module import Module

from ....compiler.values import Architecture
from ..attention import DocumentAttention
from ..heads import TokenHead, record_model

Init = Callable[[torch.Tensor], object]

Head = Literal["logits", "tokens", "score"]
"""What a model says: logits of all places; of some places, the cross-entropy of a token or a
score."""


class Family(NamedTuple):
    """A family: `ModelSpec` (architecture, device, longest sequence, head), and `config.json` with
    the stem of the model's classes as `name`."""

    model_spec: Callable[[Architecture, str, int, Head], ModelSpec]
    hf_config: Callable[[Architecture], dict[str, Any]]


def normal(std: float) -> Init:
    """Draws from a normal distribution cut at two."""
    return partial(nn.init.trunc_normal_, std=std)


def norm(architecture: Architecture, width: int) -> RMSNorm.Config:
    """A norm over `width` elements."""
    ones = {"weight": nn.init.ones_}
    return RMSNorm.Config(normalized_shape=width, eps=architecture.norm_eps, param_init=ones)


def inner_attention(device: str) -> Module.Config:
    """Attention within documents."""
    return DocumentAttention.Config() if device == "cpu" else get_attention_config("flex")


def linear(device: str, rows: int, columns: int, init: Init) -> Linear.Config:
    """A layer from `columns` to `rows`."""
    return Linear.Config(in_features=columns, out_features=rows, param_init=whole(device, init))


def whole(device: str, init: Init, *names: str) -> dict[str, Init]:
    """`init` for a layer's weights, with the same result however the weight is sharded.

    On the CPU, DTensor draws each shard from the same random numbers, as if it were the first.
    """

    def drawn(weight: torch.Tensor) -> None:
        if not isinstance(weight, DTensor):
            init(weight)
            return
        full = torch.empty(weight.shape, dtype=weight.dtype)
        init(full)
        weight.copy_(
            distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None)
        )

    return dict.fromkeys(names or ("weight",), init if device != "cpu" else drawn)


def decoder(
    model: type[Decoder],
    architecture: Architecture,
    device: str,
    head: Head,
    layers: list[Any],
    embedding: Init,
    **options: Any,
) -> Decoder.Config:
    """The configuration of a decoder from its layers, with the head that is asked for."""
    dim = architecture.dim
    tied = architecture.tied and head != "score"
    std = dim**-0.5
    output = partial(nn.init.trunc_normal_, std=std, a=-3 * std, b=3 * std)
    last = TokenHead if head == "tokens" else Linear
    kind: Any = model if head == "logits" else record_model(model)
    return kind.Config(
        dim=dim,
        vocab_size=architecture.vocab,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(
            num_embeddings=architecture.vocab,
            embedding_dim=dim,
            # Tied weights are drawn once, as the output's.
            param_init={"weight": skip_param_init} if tied else whole(device, embedding),
        ),
        norm=norm(architecture, dim),
        lm_head=last.Config(
            in_features=dim,
            out_features=1 if head == "score" else architecture.vocab,
            param_init=whole(device, output),
        ),
        layers=layers,
        **options,
    )


def spec(
    architecture: Architecture,
    device: str,
    model: Decoder.Config,
    parallelize: Callable[..., nn.Module],
    adapter: Any,
) -> ModelSpec:
    """The `ModelSpec` of a model's configuration."""
    balanced = architecture.experts and architecture.experts.balance
    return ModelSpec(
        name=architecture.family,
        flavor=architecture.size or "custom",
        model=model,
        parallelize_fn=_summing(parallelize) if device == "cpu" else parallelize,
        pipelining_fn=pipeline_llm,
        post_optimizer_build_fn=register_moe_load_balancing_hook if balanced else None,
        state_dict_adapter=adapter,
    )


def hf_rope(architecture: Architecture) -> dict[str, Any]:
    """The same for transformers."""
    theta = {"rope_theta": architecture.rope_theta}
    stretched = {
        "factor": architecture.rope_factor,
        "original_max_position_embeddings": architecture.rope_original,
    }
    match architecture.rope_scaling:
        case "llama":
            bounds = {
                "low_freq_factor": architecture.rope_low,
                "high_freq_factor": architecture.rope_high,
            }
            return theta | {"rope_type": "llama3"} | stretched | bounds
        case "yarn":
            # torchtitan turns by YaRN's angles and leaves the length of queries and keys as it is.
            return theta | {"rope_type": "yarn", "attention_factor": 1.0} | stretched
    return theta | {"rope_type": "default"}


def hf_shape(architecture: Architecture) -> dict[str, Any]:
    """What `config.json` says of every family."""
    return {
        "hidden_size": architecture.dim,
        "intermediate_size": architecture.ffn,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "vocab_size": architecture.vocab,
        "max_position_embeddings": architecture.context,
        "rms_norm_eps": architecture.norm_eps,
        "rope_theta": architecture.rope_theta,
        "rope_parameters": hf_rope(architecture),
        "hidden_act": "silu",
        "attention_bias": False,
    }


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
