"""The closed forms of ramps, shared by the compiler, the plan and the runtime."""

import math
from typing import Literal

Shape = Literal["hold", "linear", "cosine", "half_cosine", "sqrt", "exponential"]


def progress(shape: Shape, u: float) -> float:
    """How far along its way from 0 to 1 a ramp is after the share `u` (0 to 1) of its length.

    linear u; cosine (1 − cos πu)/2; half_cosine sin(πu/2), the second half of a cosine; sqrt √u; a
    hold is at 0 throughout.
    """
    if shape == "linear":
        return u
    if shape == "cosine":
        return (1 - math.cos(math.pi * u)) / 2
    if shape == "half_cosine":
        return math.sin(math.pi * u / 2)
    if shape == "sqrt":
        return math.sqrt(u)
    return 0.0


def inverse(shape: Shape, y: float) -> float:
    """The share of its length after which a ramp has come the share `y` (0 to 1) of its way."""
    if shape == "cosine":
        return math.acos(1 - 2 * y) / math.pi
    if shape == "half_cosine":
        return math.asin(y) * 2 / math.pi
    if shape == "sqrt":
        return y * y
    return y


def value(shape: Shape, start: float, end: float, u: float) -> float:
    """The value of a ramp from `start` to `end` after the share `u` of its length.

    The exponential shape is start · (end / start)^u and needs both values above zero.
    """
    if shape == "hold" or u <= 0:
        return start
    if u >= 1:
        return end
    if shape == "exponential":
        return start * (end / start) ** u
    return start + (end - start) * progress(shape, u)
