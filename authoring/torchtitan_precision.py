"""The precision and the recomputation of torchtitan's configurations."""

from fractions import Fraction

from ..spec.quantity import plain
from ..spec.schema.precision import PARTS, RECIPES
from . import writing as w
from .config import Config

_FILTERS = {
    "output": "output",
    "lm_head": "output",
    "router": "router",
    "router.gate": "router",
    "moe.router.gate": "router",
    "gate": "router",
    "attention": "attention",
    "feed_forward": "feed_forward",
    "shared_experts": "shared_experts",
}
"""torchtitan's names of layers, or parts of them → the parts of a model that they all are."""
_LINEAR = {
    "float8": ("fp8", ("quantize.linear.float8", "float8")),
    "mx": ("mxfp8", ("quantize.linear.mx", "mx")),
}
"""Kind of converter → its precision, and the sections that it had in torchtitan's versions."""
_FSDP = (
    "enable_fsdp_float8_all_gather",
    "precompute_float8_dynamic_scale_for_fsdp",
    "force_recompute_fp8_weight_in_bwd",
)


def precision(config: Config, *, mixed: bool) -> w.Line:
    """What the passes are computed in.

    Args:
        mixed: whether the model has experts.
    """
    kind = config.text("training.mixed_precision_param", default="bfloat16")
    config.lost_unless("training.dtype", ["float32"], "weights and moments are fp32", "fp32")
    given = config.texts("model.converters") or []
    if not given:
        config.irrelevant({"quantize": "off: there is no converter", "model.converters": "off"})
        return "precision", "fp32" if kind == "float32" else "bf16"
    names = [name.rpartition(".")[2] for name in given if "grouped_mm" not in name]
    known = next((name for name in names if name in _LINEAR), None)
    if known is None or any(name not in _LINEAR for name in names):
        config.lost("model.converters", "layers are converted to fp8, mxfp8 or nvfp4 alone")
    if known is None:
        config.lost("quantize", "layers are converted to fp8, mxfp8 or nvfp4 alone")
        return "precision", "fp32" if kind == "float32" else "bf16"
    low, sections = _LINEAR[known]
    section = next((name for name in sections if config.node(name)), sections[0])
    out = _left_out(config, section, low)
    experts = any("grouped_mm" in name for name in given)
    if experts and low == "fp8":
        config.lost("quantize.grouped_mm", "experts are converted by mxfp8 alone")
    config.carried("quantize.grouped_mm")
    if mixed and low == "mxfp8" and not experts:
        out.add("experts")
    settings = {"recipe": _recipe(config, section, low)}
    usual = {"output", "router"} if mixed else {"output"}
    if out != usual:
        settings["except"] = f"[{', '.join(part for part in PARTS if part in out)}]"
    said = ", ".join(f"{name} = {value}" for name, value in settings.items() if value)
    return "precision", f"{low} {{ {said} }}" if said else low


def _left_out(config: Config, section: str, low: str) -> set[str]:
    """The parts that stay in the precision of the rest."""
    path = f"{section}.filter_fqns"
    names = config.texts(path) or []
    unknown = [name for name in names if name not in _FILTERS]
    if unknown:
        config.lost(path, f"whole parts of a model are left out, and {unknown[0]} is none")
    return {_FILTERS[name] for name in names if name in _FILTERS}


def _recipe(config: Config, section: str, low: str) -> str:
    """The recipe of fp8, where it is not the usual one."""
    path = f"{section}.recipe_name"
    recipe = config.text(path, default="tensorwise" if low == "fp8" else "mxfp8_cublas")
    speed = "torchtitan 0.3 gathers weights in bf16; the results are the same"
    config.irrelevant({f"{section}.{name}": speed for name in _FSDP})
    config.irrelevant({f"{section}.mxfp8_dim1_cast_kernel_choice": "the engine's choice"})
    if low == "fp8" and recipe not in RECIPES:
        reason = f"fp8 is scaled by rows, as in torchtitan 0.3, not by the recipe {recipe}"
        if config.has(path):
            config.lost(path, reason)
        else:
            config.assumed("precision", reason)
    elif low == "mxfp8" and not recipe.startswith("mxfp8"):
        config.lost(path, "mxfp8 is used")
    return recipe if recipe == "rowwise_with_gw_hp" else ""


def recompute(config: Config) -> w.Line:
    """What is recomputed in the backward pass."""
    section = config.node("activation_checkpoint")
    saved = "model_spec" in config.root
    if saved and not isinstance(section, dict):
        return None
    # 0.3 does not save the class's name; its settings identify it.
    mode = config.text("activation_checkpoint.mode", default=None if saved else "selective")
    if mode == "memory_budget" or (
        saved and isinstance(section, dict) and "memory_budget" in section
    ):
        share = config.number("activation_checkpoint.memory_budget", default=Fraction(1, 2))
        return "recompute", f"budget {plain(share * 100)}%"
    if saved:
        assert isinstance(section, dict)
        selective = "force_recompute_mm_shapes_by_fqns" in section
        return "recompute", "selective" if selective else "full"
    if mode not in ("none", "selective", "full"):
        config.lost("activation_checkpoint.mode", "none, selective or full; full is used")
        mode = "full"
    return ("recompute", mode) if mode != "none" else None
