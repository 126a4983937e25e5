"""Scaling laws: how a loss falls with parameters and tokens, fitted to the runs of a sweep."""

from collections.abc import Sequence
from itertools import product
from math import exp, log
from typing import Any, Literal, NamedTuple

import numpy as np

LEAST = 3
"""The fewest sizes, or counts of tokens, from which an exponent can be told."""
HUBER = 1e-3
"""From this error of log L on, a point counts linearly (arXiv:2203.15556, appendix D.2)."""
_SHARES, _EXPONENTS = (0.2, 0.8), (0.1, 0.4, 1.0)
"""Where fits start: the share of E in the least loss, and the exponents."""

_MOST, _NOTHING = 5.0, 1e-6
"""The largest exponent that is looked for, and what counts as no exponent."""

_TOLERANCES = {"ftol": 1e-12, "xtol": 1e-12, "gtol": 1e-12, "max_nfev": 500}


class Observed(NamedTuple):
    """A trained model: its parameters, the tokens that it was trained on, its loss (nats)."""

    parameters: float
    tokens: float
    loss: float


class Law(NamedTuple):
    """L(N, D) = E + A / N^α + B / D^β (Hoffmann et al., arXiv:2203.15556, equation 2).

    Attributes:
        values: `E`, and `A`, `alpha`, `B`, `beta`, as far as parameters N or tokens D vary.
        ranges: the same fitted without each point in turn: the least and the largest.
        error: the largest error of a point, as a share of its loss.
    """

    values: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    error: float

    def best(self, flops: float) -> tuple[float, float] | None:
        """The parameters and tokens with the least loss for C = 6 N D FLOPs (the same paper,
        equation 4); None if only one of them varied, or the loss falls with only one of them."""
        of = self.values
        if any(of.get(name, 0.0) < _NOTHING for name in ("A", "alpha", "B", "beta")):
            return None
        both = of["alpha"] + of["beta"]
        ratio = (of["alpha"] * of["A"] / (of["beta"] * of["B"])) ** (1 / both)
        parameters = ratio * (flops / 6) ** (of["beta"] / both)
        return parameters, flops / 6 / parameters


def varied(points: Sequence[Observed]) -> tuple[bool, bool]:
    """Whether parameters and tokens vary enough to tell an exponent."""
    sizes = len({point.parameters for point in points})
    tokens = len({point.tokens for point in points})
    return sizes >= LEAST, tokens >= LEAST


def fitted(points: Sequence[Observed]) -> Law | None:
    """The law of some runs; None if neither parameters nor tokens vary enough, or there are fewer
    points than it has numbers, and one.

    Raises: ImportError: scipy is not installed.
    """
    terms = varied(points)
    numbers = 1 + 2 * sum(terms)
    if not any(terms) or len(points) <= numbers:
        return None
    least = min(point.loss for point in points)
    starts = [
        np.array([log(share * least), *(n for each in exponents for n in (rest, each))])
        for share in _SHARES
        for rest in [log((1 - share) * least / sum(terms))]
        for exponents in product(_EXPONENTS, repeat=sum(terms))
    ]
    best = _fit(points, terms, starts)
    values = _named(points, terms, best)
    without = [
        _named(rest, terms, _fit(rest, terms, [_shifted(points, rest, terms, best)]))
        for n in range(len(points))
        for rest in [[*points[:n], *points[n + 1 :]]]
    ]
    predicted = np.exp(_logs(best, *_columns(points, terms)))
    losses = np.array([point.loss for point in points])
    return Law(
        values,
        {name: (min(w[name] for w in without), max(w[name] for w in without)) for name in values},
        float(np.abs(predicted / losses - 1).max()),
    )


def _columns(points: Sequence[Observed], terms: tuple[bool, bool]) -> tuple[Any, Any]:
    """Logarithms of what varies, around their means, shape (terms, points); and of the losses."""
    logs = np.log(np.array([[point.parameters, point.tokens] for point in points], float)).T
    logs = logs[list(terms)]
    losses = np.log(np.array([point.loss for point in points], float))
    return logs - logs.mean(axis=1, keepdims=True), losses


def _logs(numbers: Any, columns: Any, losses: Any) -> Any:
    """log L of each point: the sum of e^E' and of a term e^(a' − exponent × log) for each of what
    varies."""
    offsets, exponents = numbers[1::2], numbers[2::2]
    each = offsets[:, None] - exponents[:, None] * columns
    return np.logaddexp.reduce(np.vstack([np.full(len(losses), numbers[0]), each]), axis=0)


def _fit(points: Sequence[Observed], terms: tuple[bool, bool], starts: Sequence[Any]) -> Any:
    """The numbers with the least Huber loss of log L, found from the best of several fits by least
    squares: the Huber loss is nearly flat far from its minimum."""
    from scipy.optimize import least_squares

    columns, losses = _columns(points, terms)
    pairs = sum(terms)
    bounds = ([-np.inf, *[-np.inf, 0.0] * pairs], [np.inf, *[np.inf, _MOST] * pairs])

    def solved(start: Any, loss: Literal["linear", "huber"]) -> Any:
        return least_squares(
            lambda numbers: _logs(numbers, columns, losses) - losses,
            np.clip(start, *bounds),
            bounds=bounds,
            loss=loss,
            f_scale=HUBER,
            x_scale="jac",
            **_TOLERANCES,
        )

    squares = min((solved(start, "linear") for start in starts), key=lambda each: each.cost)
    return solved(squares.x, "huber").x


def _shifted(
    points: Sequence[Observed], rest: Sequence[Observed], terms: tuple[bool, bool], numbers: Any
) -> Any:
    """The numbers of a fit, around the means of fewer points."""
    moved = numbers.copy()
    moved[1::2] += numbers[2::2] * (_means(points, terms) - _means(rest, terms))
    return moved


def _means(points: Sequence[Observed], terms: tuple[bool, bool]) -> Any:
    logs = np.array([[log(point.parameters), log(point.tokens)] for point in points])
    return logs.mean(axis=0)[list(terms)]


def _named(points: Sequence[Observed], terms: tuple[bool, bool], numbers: Any) -> dict[str, float]:
    """The numbers of a fit as the law has them."""
    found = {"E": exp(numbers[0])}
    names = [
        pair for pair, term in zip((("A", "alpha"), ("B", "beta")), terms, strict=True) if term
    ]
    for n, ((scale, exponent), mean) in enumerate(zip(names, _means(points, terms), strict=True)):
        offset, power = float(numbers[1 + 2 * n]), float(numbers[2 + 2 * n])
        found |= {scale: exp(offset + power * mean), exponent: power}
    return found
