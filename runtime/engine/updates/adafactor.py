"""Adafactor: squared gradients kept as means of rows and columns, rates relative to the size of a
parameter, updates of bounded size (Shazeer and Stern, arXiv:1804.04235, Algorithms 4 to 6)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_reduce
from torch.distributed.tensor import DTensor, Placement, Replicate

from .one_by_one import OneByOne


class Adafactor(OneByOne):
    """Adafactor without a first moment, for parameters that are whole or cut in any way.

    The last two dimensions of a parameter are rows and columns; a stack of matrices has one size
    and one bound on its update. torch.optim.Adafactor takes no parameters that are cut: of vectors
    each rank would update its part by the size of that part alone, and of matrices torch 2.14
    raises. It also lowers the rate to 1 / √t in its step t, where the plan's rate is what is
    meant here, and counts a mean of squares as at least its ε₁, 1.2e-7 by default, which gradients
    of large models are below.
    """

    def learn(self, param: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if not state:
            state |= _empty(param)
        state["step"] += 1
        weights, slope = _here(param), _here(gradient)
        rate: float | Tensor = group["lr"]
        if group["scale_parameter"]:
            rate = rate * _rms(weights, param).clamp(min=group["eps2"])
        share = state["step"].item() ** -group["beta2_decay"]
        if group["weight_decay"]:
            weights.mul_(1 - group["lr"] * group["weight_decay"])
        if param.ndim > 1:
            divisor = _factored(slope, param, state, share).clamp_(min=group["eps1"] ** 2)
        else:
            squares = _here(state["variance"]).lerp_(slope.square(), share)
            divisor = squares.clamp(min=group["eps1"] ** 2)
        update = divisor.rsqrt_().mul_(slope)
        bound = (_rms(update, param) / group["d"]).clamp(min=1)
        weights.addcmul_(update, rate / bound, value=-1)


def _empty(param: Tensor) -> dict[str, Tensor]:
    """The state before the first step, with the names of torch.optim.Adafactor."""
    step = torch.zeros((), dtype=torch.float32)
    if param.ndim < 2:
        return {"step": step, "variance": torch.zeros_like(param)}
    return {"step": step, "row_var": _means(param, -1), "col_var": _means(param, -2)}


def _means(param: Tensor, over: int) -> Tensor:
    """Zeros for means over one dimension, which lie where the rest of the parameter lies."""
    shape = list(param.shape)
    shape[over] = 1
    if not isinstance(param, DTensor):
        return param.new_zeros(shape)
    here = list(param.to_local().shape)
    here[over] = 1
    dim = param.ndim + over
    places = [Replicate() if _cut(each) == dim else each for each in param.placements]
    return DTensor.from_local(
        param.to_local().new_zeros(here),
        param.device_mesh,
        places,
        run_check=False,
        shape=torch.Size(shape),
        stride=torch.empty(shape, device="meta").stride(),
    )


def _factored(slope: Tensor, param: Tensor, state: dict[str, Any], share: float) -> Tensor:
    """The estimate of squared gradients, R C / mean(R), after the means have taken in a gradient.

    R is divided first: fp32 may not hold the product of two means of squares.
    """
    rows, columns = _here(state["row_var"]), _here(state["col_var"])
    for kept, over in ((rows, -1), (columns, -2)):
        # A norm, and not a sum of squares: those would be another tensor of the parameter's size.
        squares = torch.linalg.vector_norm(slope, dim=over, keepdim=True).square_()
        kept.lerp_(_summed(squares, param, [param.ndim + over]) / param.shape[over], share)
    mean = _summed(rows.sum(-2, keepdim=True), param, [param.ndim - 2]) / param.shape[-2]
    return (rows / mean.clamp_(min=torch.finfo(mean.dtype).tiny)) * columns


def _rms(value: Tensor, param: Tensor) -> Tensor:
    """The root mean square of a tensor of which each rank has what it has of the parameter."""
    squares = torch.linalg.vector_norm(value).square_()
    return (_summed(squares, param, range(param.ndim)) / param.numel()).sqrt_()


def _summed(value: Tensor, param: Tensor, dims: Sequence[int]) -> Tensor:
    """The sum of what ranks have found over dimensions of which each has a part of the parameter;
    the same bits on all."""
    if isinstance(param, DTensor):
        for axis, place in enumerate(param.placements):
            if _cut(place) in dims:
                all_reduce(value, group=param.device_mesh.get_group(axis))
    return value


def _cut(place: Placement) -> int | None:
    """The dimension that ranks share; None where all have the same."""
    return getattr(place, "dim", None)


def _here(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
