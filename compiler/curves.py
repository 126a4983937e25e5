"""The closed forms of ramps, shared by the compiler, the plan and the runtime."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ..spec.schedule import Shape


class Curve(NamedTuple):
    """The form of a ramp.

    Attributes:
        progress: how far from 0 to 1 it is after the share u (0 to 1) of its length.
        inverse: the share of its length after which its progress is y.
        by_ratio: the factor on its start after the share u, by the end over the start, so that
            both have to be above zero; None: it is its start and `progress` of the way to its end.
    """

    progress: Callable[[float], float]
    inverse: Callable[[float], float]
    by_ratio: Callable[[float, float], float] | None = None


def _by_ratio(factor: Callable[[float, float], float]) -> Curve:
    return Curve(lambda u: u, lambda y: y, factor)


def _power(of: int) -> Curve:
    """1 / value^`of` changes linearly: with the step k, as 1 / k^(1 / `of`)."""
    return _by_ratio(lambda ratio, u: (1 + u * (ratio**-of - 1)) ** (-1 / of))


CURVES: dict[Shape, Curve] = {
    "hold": Curve(lambda u: 0.0, lambda y: y),
    "linear": Curve(lambda u: u, lambda y: y),
    "cosine": Curve(
        lambda u: (1 - math.cos(math.pi * u)) / 2,
        lambda y: math.acos(1 - 2 * y) / math.pi,
    ),
    # The second half of a cosine.
    "half_cosine": Curve(
        lambda u: math.sin(math.pi * u / 2),
        lambda y: math.asin(y) * 2 / math.pi,
    ),
    "sqrt": Curve(math.sqrt, lambda y: y * y),
    "exponential": _by_ratio(lambda ratio, u: ratio**u),
    "inverse": _power(1),
    # T5 (arXiv:1910.10683 §3.1.2) and PaLM (arXiv:2204.02311 §5)
    "inverse_sqrt": _power(2),
}


def value(shape: Shape, start: float, end: float, u: float) -> float:
    """The value of a ramp from `start` to `end` after the share `u` of its length."""
    if shape == "hold" or u <= 0:
        return start
    if u >= 1:
        return end
    curve = CURVES[shape]
    if curve.by_ratio:
        return start * curve.by_ratio(end / start, u)
    return start + (end - start) * curve.progress(u)
