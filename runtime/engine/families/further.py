"""torchtitan's modules that predict further tokens, where torchtitan 0.3 passes over them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any

import torch
from torch import nn
from torchtitan.components.optimizer import register_moe_load_balancing_hook
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.deepseek_v3.mtp import MTPDecoder
from torchtitan.protocols.module import ModuleList

Parallelize = Callable[..., nn.Module]


def main_without_gradients(model: Any) -> Any:
    """The model's configuration; where it does not learn, it predicts the next token alone."""
    kind: Any = _measurable(type(model)._owner)
    return kind.Config(**{field.name: getattr(model, field.name) for field in fields(model)})


@cache
def _measurable(decoder: type[MTPDecoder]) -> type[MTPDecoder]:
    base: Any = decoder

    class Measurable(base):
        @dataclass(kw_only=True, slots=True)
        class Config(base.Config):
            pass

        def forward(self, *arguments: Any, **keywords: Any) -> Any:
            """Logits of the next token and of each further one; without gradients those of the
            next, shape (B, L, V)."""
            if torch.is_grad_enabled():
                return base.forward(self, *arguments, **keywords)
            return Decoder.forward(self, *arguments, **keywords)

    return Measurable


def with_modules(parallelize: Parallelize) -> Parallelize:
    """torchtitan's function, which recomputes, compiles and shards `layers`, for the modules too:
    they stand behind the layers while it works."""

    @wraps(parallelize)
    def wrapped(model: Any, **keywords: Any) -> nn.Module:
        modules = model.mtp_layers
        names = [str(len(model.layers) + depth) for depth in range(len(modules))]
        for name, module in zip(names, modules, strict=True):
            model.layers[name] = module
        model.mtp_layers = None
        made: Any = parallelize(model, **keywords)
        made.mtp_layers = ModuleList([made.layers[name] for name in names])
        for name in names:
            del made.layers[name]
        return made

    return wrapped


def balance_modules(optimizers: Any, parts: list[Any], dims: Any) -> None:
    """torchtitan's balancing of the load of experts, of the modules' experts too."""
    behind: list[Any] = []
    for part in parts:
        behind.append(nn.Module())
        named = {str(depth): module for depth, module in enumerate(part.mtp_layers)}
        behind[-1].layers = nn.ModuleDict(named)
    register_moe_load_balancing_hook(optimizers, [*parts, *behind], dims)
