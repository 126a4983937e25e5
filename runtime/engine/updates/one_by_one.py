"""Optimizers of our own, which are simple loops over parameters."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class OneByOne(Optimizer):
    """An optimizer whose parameters learn one after the other, each by its own gradient."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.learn(param, param.grad, group)

    def learn(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Changes a parameter.

        Args:
            group: its settings.
        """
        raise NotImplementedError
