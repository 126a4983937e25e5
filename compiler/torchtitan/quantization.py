"""Matrix products in 8 and 4 bits under torchtitan's names: its converters of models."""

from collections.abc import Mapping
from typing import Any

from ...spec.schema.precision import Precision
from ..families.architectures import linear_layers
from ..families.low_precision import KERNELS, converted, layers, products
from ..values import ModelShape

SECTION = "quantization"
"""Where a job's configuration has the converters: class → its settings, in their order."""
NAMES = {
    "attention": "attention.",
    "feed_forward": "feed_forward.",
    "shared_experts": "moe.shared_experts.",
    "router": "moe.router.",
    "output": "lm_head",
}
"""Part of a model → what torchtitan's names of its linear layers contain, and no others'."""
QUERIES = "attention.qkv_linear."
"""The same for the layers of attention with biases that can be converted: not its output."""
GATE = "moe.shared_experts.gate"
"""The gate of shared experts, of one row, which is never converted."""
MATRICES = "moe.shared_experts.w"
"""Their other matrices."""
LINEAR = tuple(f"delta_net.{name}" for name in ("wq", "wk", "wv", "wz", "wo"))
"""The same for the layers of linear attention that can be converted: not those of its decay and
its strength, which have a row for each head."""
SMALL = ("delta_net.wa", "delta_net.wb")
_CLASSES = {"fp8": "Float8Linear", "mxfp8": "MXFP8Linear", "nvfp4": "NVFP4Linear"}


def compiles(sections: Mapping[str, Any]) -> bool:
    """Whether a job with these sections compiles its model."""
    fields = sections.get("compile", {})
    return fields.get("enable", False) and "model" in fields.get("components", ["model"])


def quantization(precision: Precision, model: ModelShape, *, logits: bool) -> dict[str, Any]:
    """The converters of a job's model; {} if it is in bf16 or fp32.

    Args:
        logits: whether the model's output is torchtitan's, which can be converted.
    """
    parts = [part for part in converted(precision, model) if logits or part != "output"]
    if not parts:
        return {}
    linear = [part for part in parts if part != "experts"]
    gated = model.experts is not None and model.experts.shared_gate
    every, inside = range(model.layers), layers(precision, model)
    found: dict[str, Any] = {}
    if linear and precision.kind == "fp8":
        left = [NAMES[part] for part in products(model) if part in NAMES and part not in parts]
        left += ["attention.wo"] if model.biased and "attention" in parts else []
        left += [GATE] if gated else []
        if linear_layers(model):
            left += SMALL if "attention" in parts else ["delta_net."]
        left += [f"layers.{layer}." for layer in every if layer not in inside]
        found["Float8LinearConverter"] = {"recipe_name": precision.scaling, "filter_fqns": left}
    elif linear:
        names = {part: NAMES[part] for part in linear}
        if model.biased and "attention" in names:
            names["attention"] = QUERIES
        if gated and "shared_experts" in names:
            names["shared_experts"] = MATRICES
        more = LINEAR if "attention" in names and linear_layers(model) else ()
        wanted = [*names.values(), *more]
        if inside != every:
            of_layers = [name for part, name in names.items() if part != "output"] + [*more]
            wanted = [f"layers.{layer}.{name}" for layer in inside for name in of_layers]
            wanted += [names["output"]] if "output" in names else []
        found[f"{_CLASSES[precision.kind]}Converter"] = {"fqns": wanted}
    if "experts" in parts:
        rows = KERNELS[precision.kind].experts
        found["MXFP8GroupedExpertsConverter"] = {"pad_multiple": rows}
    return found
