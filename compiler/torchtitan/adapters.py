"""Adapters under torchtitan's names: its converter of models."""

from typing import Any

from ...spec.schema.adapter import Adapter
from ..families.adapters import has_feed_forward
from ..families.architectures import linear_layers
from ..values import ModelShape

SECTION = "adapter"
"""Where a job's configuration has the converter: class → its settings."""
CONVERTER = "LoRAConverter"


def adapters(adapter: Adapter, model: ModelShape) -> dict[str, Any]:
    """The section with the converter."""
    return {
        SECTION: {
            CONVERTER: {
                "rank": adapter.rank,
                "alpha": adapter.factor * adapter.rank,  # torchtitan divides by the rank
                "target_modules": targets(adapter, model),
            }
        }
    }


def targets(adapter: Adapter, model: ModelShape) -> list[str]:
    """The last parts of torchtitan's names of the linear layers with adapters."""
    found: list[str] = []
    if "attention" in adapter.on and model.latent:
        # Not the matrices that make latents, which every tensor rank has: torchtitan 0.3 cannot
        # shard adapters beside them (`_lora_adapter_sharding`).
        found += ["wq_b" if model.latent.queries else "wq", "wkv_b", "wo"]
    elif "attention" in adapter.on:
        found += ["wq", "wkv", "wo"]
        if model.parts and model.parts.gate:
            found += ["gate"]
        if linear_layers(model):
            found += ["wk", "wv", "wz"]
    if "feed_forward" in adapter.on and has_feed_forward(model):
        found += ["w1", "w2", "w3"] if model.parts is None or model.parts.gated else ["w1", "w2"]
    return found
