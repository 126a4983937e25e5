"""Muon: momentum whose updates are made orthogonal, matrix by matrix
(https://kellerjordan.github.io/posts/muon/; arXiv:2502.16982 §2)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.optim import Optimizer
from torchtitan.distributed.flex_shard import BucketConfig, ComputeLayout, Owned, build_dist_muon

from .one_by_one import OneByOne

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial of an iteration, as published and in torch.optim.Muon."""
EPS = 1e-7
ADJUSTED: dict[str, Callable[[int, int], float]] = {
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / columns),
}
"""The factor on the rate of a matrix, by torch's names."""


def muon(groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer of these groups, of which there is one: torchtitan's DistMuon where GPUs share
    the weights, which each make some of the matrices orthogonal; else `Muon`."""
    (group,) = groups
    if not all(param.is_cuda and _axes(param) for param in group["params"]):
        return Muon(groups)
    return torchtitans(group)


def torchtitans(group: dict[str, Any]) -> Optimizer:
    """torchtitan's DistMuon for parameters that are all cut."""
    named = dict(zip(group["param_names"], group["params"], strict=True))
    return build_dist_muon(
        [group],
        compute_sharding_by_fqn={name: _layout(param) for name, param in named.items()},
        bucket_configs=list(_buckets(named)),
    )


def _axes(param: Tensor) -> tuple[str, ...]:
    """The axes of the mesh over which a parameter is cut."""
    if not isinstance(param, DTensor):
        return ()
    names = param.device_mesh.mesh_dim_names or ()
    return tuple(
        name
        for name, placement in zip(names, param.placements, strict=True)
        if not isinstance(placement, Replicate)
    )


def _layout(param: Tensor) -> ComputeLayout:
    """Where a parameter is made orthogonal: a matrix on one rank, of a stack of them some on
    each."""
    return ComputeLayout({axis: Owned() if param.ndim == 2 else Shard(0) for axis in _axes(param)})


def _buckets(named: dict[str, Tensor]) -> Iterator[BucketConfig]:
    """What is sent together: the matrices of a layer, apart from its stacks of experts, which lie
    on another mesh."""
    found: dict[str, list[str]] = {}
    for name, param in named.items():
        layer = ".".join(name.split(".")[:2])
        kind = "matrices" if param.ndim == 2 else "experts"
        found.setdefault(f"{layer}.{kind}", []).append(name)
    return (BucketConfig(name=name, patterns=tuple(of)) for name, of in found.items())


class Muon(OneByOne):
    """Muon where every rank makes all matrices orthogonal, in fp32, so that all have the same bits.

    Parameters are matrices or stacks of matrices, whole or cut in any way. torch.optim.Muon takes
    neither stacks nor parameters that are cut.
    """

    def learn(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        whole = update.full_tensor() if isinstance(update, DTensor) else update
        direction = orthogonal(whole.float(), group["ns_steps"])
        if isinstance(param, DTensor):
            direction = distribute_tensor(
                direction, param.device_mesh, param.placements, src_data_rank=None
            )
        rows, columns = whole.shape[-2:]
        param.mul_(1 - group["lr"] * group["weight_decay"])
        param.add_(direction, alpha=-group["lr"] * ADJUSTED[group["adjust_lr_fn"]](rows, columns))


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Matrices with the same singular vectors and singular values near 1, by Newton–Schulz.

    Args:
        matrices: shape (…, rows, columns).
    """
    first, second, third = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = matrices.mT if tall else matrices
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    for _ in range(steps):
        gram = found @ found.mT
        found = first * found + (second * gram + third * gram @ gram) @ found
    return found.mT if tall else found
