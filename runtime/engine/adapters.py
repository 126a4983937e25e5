"""Adapters (LoRA): torchtitan's, drawn by name, and merged into the weights beside them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torchtitan.components.lora import LoRAConverter
from torchtitan.models.common import Linear
from torchtitan.models.common.decoder import Decoder

from ...compiler.torchtitan.adapters import CONVERTER
from ..errors import RunError
from .checkpoints.storage import HEAD

DOWN, UP = ".lora_a.weight", ".lora_b.weight"
"""How torchtitan's names of A, shape (rank, inputs), and of B, shape (outputs, rank), end."""


def is_adapter(name: str) -> bool:
    """Whether a weight is an adapter's."""
    return name.endswith((DOWN, UP))


def convert(
    model: Decoder.Config, converters: Mapping[str, Mapping[str, Any]], *, trains_head: bool
) -> Decoder.Config:
    """A model whose weights are frozen, with adapters beside some.

    Args:
        converters: torchtitan's class → its settings.
        trains_head: whether the head is new, and so trained as a whole.

    Raises:
        RunError: torchtitan has no such class or setting, or not what was planned has adapters.
    """
    if converters.keys() != {CONVERTER}:
        raise RunError(
            f"torchtitan has no converter `{', '.join(converters)}`", "plan again with this version"
        )
    settings, head = converters[CONVERTER], model.lm_head
    try:
        converted: Any = LoRAConverter.Config(**settings).build().convert(model)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"torchtitan cannot add adapters: {error}", "plan again with this version of etude"
        ) from error
    if trains_head:
        converted.lm_head = head
    has = {
        name.rpartition(".")[2]
        for name, layer, _, _ in converted.traverse(Linear.Config)
        if hasattr(layer, "rank")
    }
    if lost := set(settings["target_modules"]) - has:
        raise RunError(
            f"the model has no layers {', '.join(sorted(lost))} to add adapters to",
            "plan again with this version of etude",
        )
    return converted


def frozen(parallelize: Callable[..., nn.Module], *, trains_head: bool) -> Callable[..., nn.Module]:
    """The same function for models in which only adapters are trained.

    Their A is drawn as torchtitan draws it, uniformly within ±1 / √inputs, from a function of
    `nn.init` that says so. What torchtitan has frozen is frozen again: where its modules shard
    weights, all of them can be trained afterwards (torchtitan 0.3, `Module.parallelize`).
    """

    def trains(name: str) -> bool:
        return is_adapter(name) or (trains_head and name.endswith(HEAD))

    @wraps(parallelize)
    def wrapped(model: nn.Module, **keywords: Any) -> nn.Module:
        for name, module in model.named_modules():
            if f"{name}.weight".endswith(DOWN):
                bound = cast(int, module.in_features) ** -0.5
                init = partial(nn.init.uniform_, a=-bound, b=bound)
                module._param_init = {"weight": init}  # type: ignore[assignment]
        model = parallelize(model, **keywords)
        for name, weight in model.named_parameters():
            weight.requires_grad_(trains(name))
        return model

    return wrapped


@torch.no_grad()
def merged(
    weights: Mapping[str, torch.Tensor], converters: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights without adapters, one in memory at a time: W + alpha / rank · B A where there is
    one (arXiv:2106.09685 §4.1), sharded as W is. All ranks call this together."""
    for name, weight in weights.items():
        if not is_adapter(name):
            yield name, _plus(weight.clone(), name, weights, converters)


@torch.no_grad()
def merge(
    weights: Mapping[str, torch.Tensor], converters: Mapping[str, Mapping[str, Any]]
) -> dict[str, torch.Tensor]:
    """The same, all at once and in place of the weights: the model cannot be used any more."""
    return {
        name: _plus(weight, name, weights, converters)
        for name, weight in weights.items()
        if not is_adapter(name)
    }


def _plus(
    weight: torch.Tensor,
    name: str,
    weights: Mapping[str, torch.Tensor],
    converters: Mapping[str, Mapping[str, Any]],
) -> torch.Tensor:
    """A weight to which its adapter is added, if it has one; each rank adds to its own part."""
    base = name.removesuffix(".weight")
    if base + UP not in weights:
        return weight
    factor = converters[CONVERTER]["alpha"] / converters[CONVERTER]["rank"]
    down, up = _whole(weights[base + DOWN]), _whole(weights[base + UP])
    if isinstance(weight, DTensor):
        shape, begin = compute_local_shape_and_global_offset(
            weight.shape, weight.device_mesh, weight.placements
        )
        rows, columns = (slice(b, b + n) for b, n in zip(begin, shape, strict=True))
        weight.to_local().addmm_(up[rows], down[:, columns], alpha=factor)
    else:
        weight.addmm_(up, down, alpha=factor)
    return weight


def _whole(weight: torch.Tensor) -> torch.Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
