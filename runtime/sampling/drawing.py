"""The interface of sampling: requests, settings, and the engines that draw answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import stopping


@dataclass(frozen=True)
class Request:
    """One answer to draw.

    Attributes:
        tokens: of the prompt, int32, shape (n,).
        seed: of the draw.
        most: the most tokens of the answer, including its end.
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
        context: the most tokens that the model can read.
    """

    context: int

    def draw(
        self, requests: Sequence[Request], settings: Settings
    ) -> Iterator[tuple[int, list[int]]]:
        """Number and tokens of each answer as it is ready. The tokens end with the one that ends
        the answer, or at the request's most. In a gang, all ranks draw the same."""
        ...

    def in_harness(self, load: Callable[[str], Any], tokenizer: Any, *, begins: bool) -> Any:
        """The model in the form that lm-evaluation-harness takes.

        Args:
            load: returns a module of the harness.
            begins: whether texts begin with the tokenizer's beginning-of-text token.
        """
        ...


def all_of(
    generator: Generator, requests: Sequence[Request], settings: Settings
) -> list[list[int]]:
    """The tokens of each answer, in the order of the requests."""
    found = {}
    for number, tokens in generator.draw(requests, settings):
        stopping.check("what is being drawn is drawn again")
        found[number] = tokens
    return [found[number] for number in range(len(requests))]
