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
        ratio: it interpolates by factors, so both ends must be above zero.
    """

    progress: Callable[[float], float]
    inverse: Callable[[float], float]
    ratio: bool = False


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
    # start · (end / start)^u
    "exponential": Curve(lambda u: u, lambda y: y, ratio=True),
}


def value(shape: Shape, start: float, end: float, u: float) -> float:
    """The value of a ramp from `start` to `end` after the share `u` of its length."""
    if shape == "hold" or u <= 0:
        return start
    if u >= 1:
        return end
    curve = CURVES[shape]
    if curve.ratio:
        return start * (end / start) ** curve.progress(u)
    return start + (end - start) * curve.progress(u)
