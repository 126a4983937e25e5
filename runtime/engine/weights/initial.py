"""Initial weights: a pure function of the seed and of a parameter's name and shape.

Element i of a parameter comes from number i of its own random sequence. So a rank draws only its
shard, and weights do not depend on a model's placement. The numbers come from a counter-based
generator (Philox, doi:10.1145/2063384.2063405), which can start anywhere at no cost. They are drawn
on the CPU, in float64 and in pieces, whatever device the weights are on.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from inspect import signature
from math import erf, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torchtitan.models.common.param_init import skip_param_init

from ...errors import RunError
from ..families.parts import log_uniform

Init = Callable[[torch.Tensor], object]
CONSTANT = (nn.init.ones_, nn.init.zeros_, skip_param_init)
"""Initializers that draw no random numbers."""
PIECE = 1 << 15
"""The most elements drawn at once: few enough for torch to use one thread, so that other threads
draw other pieces."""
_BITS = 52
"""Bits of a uniform number: with half a unit added, all are below 1 and exact in float64."""


def by_name(
    parallelize: Callable[..., nn.Module], seed: int, drawn: Callable[[str], bool]
) -> Callable[..., nn.Module]:
    """A function that parallelizes a model, or a part of one, and has its weights drawn by name.

    Args:
        parallelize: torchtitan's, which gets the model before anything wraps its modules.
        drawn: whether a parameter of this name is drawn. Other parameters are nan until they are
            loaded, so that one that is never loaded is noticed.
    """

    @wraps(parallelize)
    def wrapped(model: nn.Module, **keywords: Any) -> nn.Module:
        for path, module in model.named_modules():
            inits: dict[str, Init] = getattr(module, "_param_init", None) or {}
            made = {
                name: _named(init, seed, full) if drawn(full) else _awaited
                for name, init in inits.items()
                for full in [f"{path}.{name}"]
                if init not in CONSTANT
            }
            if made:
                module._param_init = {**inits, **made}  # type: ignore[assignment]
        return parallelize(model, **keywords)

    return wrapped


def _awaited(weight: torch.Tensor) -> None:
    weight.fill_(torch.nan)


def _named(init: Init, seed: int, name: str) -> Init:
    quantile = _quantile(init)

    def draw(weight: torch.Tensor) -> None:
        numbers = partial(_numbers, _key(seed, name, weight.shape))
        part, offset = weight.detach(), (0,) * weight.ndim
        if isinstance(weight, DTensor):
            part = weight.to_local().detach()  # other threads write to it
            _, offset = compute_local_shape_and_global_offset(
                weight.shape, weight.device_mesh, weight.placements
            )
        strides = torch.empty(weight.shape, device="meta").stride()
        first = sum(o * stride for o, stride in zip(offset, strides, strict=True))

        def write(piece: tuple[torch.Tensor, int]) -> None:
            rows, first = piece
            rows.copy_(quantile(numbers(first, rows.numel())).view(rows.shape))

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for _ in threads.map(write, _pieces(part, strides, first)):
                pass  # raises a thread's exception

    return draw


def _key(seed: int, name: str, shape: Sequence[int]) -> int:
    """The key of a parameter's own random sequence: 128 bits."""
    said = f"{seed} {name} {tuple(shape)}"
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:16], "big")


def _numbers(key: int, first: int, count: int) -> torch.Tensor:
    """The numbers `first`, `first` + 1, … of a key: `count` of them, float64, uniform in (0, 1)."""
    block, skipped = divmod(first, 4)  # Philox makes four at a time
    raw = np.random.Philox(key=key, counter=block).random_raw(skipped + count)[skipped:]
    return torch.from_numpy(((raw >> (64 - _BITS)) + 0.5) * 2.0**-_BITS)


def _pieces(
    part: torch.Tensor, strides: Sequence[int], first: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Views of a part of a parameter whose elements are consecutive in the parameter, each with the
    number of its first element.

    Args:
        part: has, at (i, j, …), element first + i · strides[0] + j · strides[1] + ….
    """
    if not part.numel():
        return
    row = part[0].numel()
    together = row == strides[0]  # rows are consecutive in the parameter, too
    step = max(PIECE // row, 1) if together else 1
    for i in range(0, len(part), step):
        rows, begin = part[i : i + step], first + i * strides[0]
        if together and rows.numel() <= PIECE:
            yield rows, begin
        else:
            yield from _pieces(part[i], strides[1:], begin)


def _quantile(init: Init) -> Callable[[torch.Tensor], torch.Tensor]:
    """The map from uniform numbers to the distribution that a function of `nn.init` draws.

    Raises: RunError: the function is not supported.
    """
    function = getattr(init, "func", init)
    given = signature(init).bind(torch.empty(0))
    given.apply_defaults()
    of = given.arguments
    if function is nn.init.normal_:
        return lambda uniform: torch.special.ndtri(uniform).mul_(of["std"]).add_(of["mean"])
    if function is nn.init.constant_:
        return lambda uniform: uniform.fill_(of["val"])
    if function is log_uniform:
        return lambda uniform: uniform.mul_(of["b"] - of["a"]).add_(of["a"]).log_()
    if function is nn.init.uniform_:
        return lambda uniform: uniform.mul_(of["b"] - of["a"]).add_(of["a"])
    if function is nn.init.trunc_normal_:
        low, high = (_below((of[end] - of["mean"]) / of["std"]) for end in ("a", "b"))

        def cut(uniform: torch.Tensor) -> torch.Tensor:
            normal = torch.special.ndtri(uniform.mul_(high - low).add_(low))
            return normal.mul_(of["std"]).add_(of["mean"]).clamp_(of["a"], of["b"])

        return cut
    raise RunError(
        f"etude cannot draw weights by `{getattr(function, '__name__', function)}`",
        "use a model family that draws normal weights",
    )


def _below(bound: float) -> float:
    """The share of a normal distribution below a bound, in standard deviations."""
    return (1 + erf(bound / sqrt(2))) / 2
