"""DeepSeek-V3 as torchtitan builds it: latent attention, and experts."""

from functools import partial
from typing import Any

from torch import nn
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.deepseek_v3 import DeepSeekV3Model, parallelize_deepseekv3
from torchtitan.models.deepseek_v3.state_dict_adapter import DeepSeekV3StateDictAdapter

from .family import Family
from .latent import latent_block
from .parts import further, norm, whole


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
    mtp: int,
) -> Decoder.Config:
    """torchtitan's DeepSeek-V3 in any shape."""
    shared = {"dim": dim, "heads": heads, "ffn": ffn, "norm_eps": norm_eps, "rope": rope}

    def block(layer: int) -> Any:
        return latent_block(layer, latent=latent, experts=experts, **shared)

    modules = [further(block(layers + depth), dim, norm_eps) for depth in range(mtp)]
    return whole(
        partial(DeepSeekV3Model.Config, mtp_layers=modules),
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
