"""The interface of sampling: requests, settings, and the engines that draw answers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Request:
    """One answer to draw.

    Attributes:
        tokens: of the prompt, int32, shape (n,).
        seed: of the draw.
        most: tokens of the answer, its end included.
    """

    tokens: np.ndarray
    seed: int
    most: int


@dataclass(frozen=True)
class Settings:
    """How tokens are drawn: temperature 0 takes the most probable one."""

    temperature: float
    top_p: float
    stop: frozenset[int]


class Generator(Protocol):
    """Draws answers.

    Attributes:
        context: tokens that the model can read.
    """

    context: int

    def generate(self, requests: list[Request], settings: Settings) -> list[list[int]]:
        """The tokens of each answer, up to and with the one that ends it, or the request's most."""
        ...
