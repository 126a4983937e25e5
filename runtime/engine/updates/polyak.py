"""Means of the weights during training: Polyak averaging, and the exponential moving average."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ....compiler.plan.plan import Averaging


class Mean(Stateful):
    """The running mean of the weights, in float32, sharded like them.

    After the n-th snapshot w, mₙ = mₙ₋₁ + (w − mₙ₋₁) / n (Polyak, Juditsky: Acceleration of
    stochastic approximation by averaging, SIAM J. Control Optim. 30, 1992). With a decay d, m₁ = w
    and mₙ = d mₙ₋₁ + (1 − d) w, as in torch's AveragedModel.

    Args:
        weights: returns the model's weights by name; they may be DTensors.
    """

    def __init__(
        self, averaging: Averaging, weights: Callable[[], Iterable[tuple[str, torch.Tensor]]]
    ) -> None:
        self._averaging = averaging
        self._weights = weights
        self.count = 0
        self.mean = {
            name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights()
        }

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Takes a snapshot, if one is due after this many steps of the stage."""
        since = steps - self._averaging.from_step
        if since <= 0 or since % self._averaging.every:
            return
        self.count += 1
        decay = self._averaging.decay
        if decay is not None and self.count > 1:
            self._decay(decay)
            return
        for name, weight in self._weights():
            _local(self.mean[name]).lerp_(_local(weight).float(), 1 / self.count)

    def _decay(self, decay: float) -> None:
        move = get_ema_multi_avg_fn(decay)
        pairs = [(_local(self.mean[name]), _local(weight)) for name, weight in self._weights()]
        move([mean for mean, _ in pairs], [weight.float() for _, weight in pairs], self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]
        self.mean = state_dict["mean"]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
