"""What tensor parallelism divides of a model, and what its ranks share instead."""

from .families.architectures import dense_layers
from .values import ModelShape


def shares_keys(model: ModelShape) -> bool:
    """Whether several tensor ranks may have the same head of keys and values, where there are fewer
    heads than ranks."""
    parts = model.parts
    mixed = parts is not None and (parts.qk_norm in ("width", "layers") or parts.linear_heads > 0)
    return model.latent is None and not model.sinks and not mixed


def shared_keys(model: ModelShape, tensor: int) -> bool:
    """Whether so many tensor ranks share heads of keys and values."""
    return model.latent is None and model.kv_heads % tensor > 0


def tensor_widths(model: ModelShape, expert: int) -> dict[str, int]:
    """What tensor parallelism splits, in the spec's words; experts only if they stay together."""
    widths = {
        "heads": model.heads,
        **({} if shares_keys(model) else {"kv_heads": model.kv_heads}),
        "ffn": model.ffn,
        "vocab": model.vocab,
    }
    if model.parts and model.parts.linear_heads:
        widths["linear_key_heads"] = model.parts.linear_key_heads
    if model.experts and expert == 1:
        widths["experts.ffn"] = model.experts.ffn
    if dense_layers(model) == 0:
        del widths["ffn"]
    return widths
