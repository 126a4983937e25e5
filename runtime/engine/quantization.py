"""Matrix products in 8 and 4 bits: torchtitan's converters, as the plan has them."""

from collections.abc import Mapping
from typing import Any

from torchtitan.components import quantization
from torchtitan.models.common import Linear
from torchtitan.models.common.decoder import Decoder

from ..errors import RunError

PACKAGE = "torchao"
"""What the converters need; `etude[fp8]` installs it."""


def reset() -> None:
    """Undoes what jobs before this one have set for the whole process: with it, a job would compute
    otherwise than in a process of its own."""
    import torch._functorch.config as functorch  # only here: they take a while
    import torch._inductor.config as inductor

    inductor.emulate_precision_casts = False  # fp8 by rows
    functorch.activation_memory_budget = 1.0  # a budget of recomputation


def convert(
    model: Decoder.Config, converters: Mapping[str, Mapping[str, Any]], *, compiled: bool
) -> Decoder.Config:
    """A model whose layers are converted by torchtitan.

    Args:
        converters: torchtitan's class → its settings, applied in this order.
        compiled: whether the model is compiled.

    Raises:
        RunError: torchtitan has no such class or setting, torchao is missing, the device does not
            have the precision, or not what was planned would be converted.
    """
    before = {name: type(layer) for name, layer, _, _ in model.traverse(Linear.Config)}
    for name, settings in converters.items():
        kind = getattr(quantization, name, None)
        if kind is None:
            raise RunError(f"torchtitan has no converter `{name}`", "plan again with this version")
        try:
            converter = kind.Config(model_compile_enabled=compiled, **settings).build()
            model = converter.convert(model)
        except ImportError as error:
            raise RunError(
                f"{name} needs the package {PACKAGE}: {error}",
                "install it on every node: pip install 'etude[fp8]'",
            ) from error
        except (ValueError, TypeError) as error:
            raise RunError(
                f"torchtitan cannot convert the model by {name}: {error}",
                "choose a `precision` that this machine's GPUs have, or leave more out by `except`",
            ) from error
    after = {name: type(layer) for name, layer, _, _ in model.traverse(Linear.Config)}
    changed = [name for name, layer in after.items() if layer is not before[name]]
    special = [name for name in changed if before[name] is not Linear.Config]
    if special:
        raise RunError(
            f"the layer {special[0]} is of a class that would lose what it does beside its product",
            "plan again with this version of etude",
        )
    if not changed and any("Linear" in name for name in converters):
        raise RunError(
            f"{' and '.join(converters)} convert no layer", "plan again with this version of etude"
        )
    return model
