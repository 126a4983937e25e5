"""Spikes of the gradient: steps that are not taken, or at which the run stops.

A step is a spike if its gradient norm, before clipping, is not finite, or is more than `above`
times the median of the norms of the last `WINDOW` steps of the job that were none, once there are
`LEAST` of them. All ranks know the norm, so all decide the same.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.tensor import DTensor
from torchtitan.distributed import utils as dist_utils

from ....compiler.values import Spikes as Policy

WINDOW = 128
"""Steps whose median is the usual norm."""
LEAST = 16
"""Steps of a job before which nothing is usual yet."""


class Spike(NamedTuple):
    """A step that is a spike.

    Attributes:
        norm: of its gradient.
        usual: the median of the steps before; nan if there are too few.
    """

    norm: float
    usual: float

    def __str__(self) -> str:
        if not math.isfinite(self.norm):
            return "the gradient is not finite"
        return (
            f"the gradient norm is {self.norm:.4g}, {self.norm / self.usual:.3g} times the usual "
            f"{self.usual:.4g}"
        )


class Spikes(Stateful):
    """What is usual for a job, as its checkpoints keep it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._norms = torch.zeros(WINDOW, dtype=torch.float64)  # 0: no step yet

    def seen(self, norm: float) -> Spike | None:
        """Takes in the norm of a step; returns it as a spike if it is one."""
        known = self._norms[self._norms > 0]
        usual = known.median().item() if len(known) >= LEAST else math.nan
        if not math.isfinite(norm) or norm > self.policy.above * usual:
            return Spike(norm, usual)
        self._norms = torch.cat([self._norms[1:], torch.tensor([norm], dtype=torch.float64)])
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self._norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._norms = state_dict["norms"]


@contextmanager
def deciding(optimizers: Any, take: Callable[[float], bool]) -> Iterator[None]:
    """Has `take` say within a step of torchtitan's, from the norm of the gradient, whether the
    optimizer steps. torchtitan has no place for that between clipping and the optimizer (0.3).
    """
    clip, step = dist_utils.clip_grad_norm_, optimizers.step
    taken = True

    def clipped(*args: Any, **named: Any) -> Any:
        nonlocal taken
        norm = clip(*args, **named)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        taken = take(float(whole))
        return norm

    def stepped(*args: Any, **named: Any) -> Any:
        return step(*args, **named) if taken else None

    dist_utils.clip_grad_norm_ = clipped
    optimizers.step = stepped
    try:
        yield
    finally:
        dist_utils.clip_grad_norm_ = clip
        optimizers.step = step
