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
RESAMPLES, SEED = 100, 0
"""Refits to losses with resampled errors, and the seed that draws them."""
BAND = (2.5, 97.5)
"""Percentiles of the refits between which a number lies with 95 % confidence."""
_SHARES, _EXPONENTS = (0.2, 0.8), (0.1, 0.4, 1.0)
"""Where fits start: the share of E in the least loss, and the exponents."""

_MOST, _NOTHING = 5.0, 1e-6
"""The largest exponent that is looked for, and what counts as no exponent."""

_TOLERANCE = 1e-12
_EVALUATIONS, _OF_REFITS = 500, 40
"""The most evaluations of a fit, and of a refit, which starts where the fit has ended."""


class Observed(NamedTuple):
    """A trained model: its parameters, the tokens that it was trained on, its loss (nats)."""

    parameters: float
    tokens: float
    loss: float


class Law(NamedTuple):
    """L(N, D) = E + A / N^α + B / D^β (Hoffmann et al., arXiv:2203.15556, equation 2).

    Attributes:
        values: `E`, and `A`, `alpha`, `B`, `beta`, as far as parameters N or tokens D vary.
        resampled: the same of each refit to resampled errors.
        error: the largest error of a point, as a share of its loss.
    """

    values: dict[str, float]
    resampled: tuple[dict[str, float], ...]
    error: float

    def band(self, name: str) -> tuple[float, float]:
        """The 95 % confidence band of a number."""
        return _band([of[name] for of in self.resampled])

    def best(self, flops: float) -> "Optimum | None":
        """The parameters and tokens with the least loss for C = 6 N D FLOPs; None if only one of
        them varied, or the loss falls with only one of them."""
        found = _best(self.values, flops)
        if found is None:
            return None
        others = [each for of in self.resampled if (each := _best(of, flops)) is not None]
        bands = [_band(column) for column in zip(*others, strict=True)] or [(n, n) for n in found]
        return Optimum(*found, *bands)


class Optimum(NamedTuple):
    """What a budget trains best: parameters, tokens, the loss, and their 95 % bands."""

    parameters: float
    tokens: float
    loss: float
    of_parameters: tuple[float, float]
    of_tokens: tuple[float, float]
    of_loss: tuple[float, float]


def _best(of: dict[str, float], flops: float) -> tuple[float, float, float] | None:
    """Parameters, tokens and loss of the optimum (the same paper, equation 4)."""
    if any(of.get(name, 0.0) < _NOTHING for name in ("A", "alpha", "B", "beta")):
        return None
    both = of["alpha"] + of["beta"]
    ratio = (of["alpha"] * of["A"] / (of["beta"] * of["B"])) ** (1 / both)
    parameters = ratio * (flops / 6) ** (of["beta"] / both)
    tokens = flops / 6 / parameters
    loss = of["E"] + of["A"] / parameters ** of["alpha"] + of["B"] / tokens ** of["beta"]
    return parameters, tokens, loss


def _band(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(np.array(values), BAND)
    return float(low), float(high)


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
    columns, losses = _columns(points, terms)
    predicted = _logs(best, columns, losses)
    errors = losses - predicted
    # Residuals of a fit are smaller than the errors: it has used up as many of them as numbers.
    errors = (errors - errors.mean()) * (len(points) / (len(points) - numbers)) ** 0.5
    draw = np.random.default_rng(SEED)
    resampled = []
    for _ in range(RESAMPLES):
        drawn = np.exp(predicted + draw.choice(errors, len(points)))
        moved = [p._replace(loss=float(n)) for p, n in zip(points, drawn, strict=True)]
        resampled.append(_named(moved, terms, _solved(moved, terms, best, _OF_REFITS)))
    error = float(np.abs(np.exp(predicted - losses) - 1).max())
    return Law(values, tuple(resampled), error)


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
    fits = [_solve(points, terms, start, "linear") for start in starts]
    squares = min(fits, key=lambda each: each.cost)
    return _solved(points, terms, squares.x, _EVALUATIONS)


def _solved(points: Sequence[Observed], terms: tuple[bool, bool], start: Any, most: int) -> Any:
    return _solve(points, terms, start, "huber", most).x


def _solve(
    points: Sequence[Observed],
    terms: tuple[bool, bool],
    start: Any,
    loss: Literal["linear", "huber"],
    most: int = _EVALUATIONS,
) -> Any:
    from scipy.optimize import least_squares

    columns, losses = _columns(points, terms)
    pairs = sum(terms)
    bounds = ([-np.inf, *[-np.inf, 0.0] * pairs], [np.inf, *[np.inf, _MOST] * pairs])
    return least_squares(
        lambda numbers: _logs(numbers, columns, losses) - losses,
        np.clip(start, *bounds),
        bounds=bounds,
        loss=loss,
        f_scale=HUBER,
        x_scale="jac",
        max_nfev=most,
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        gtol=_TOLERANCE,
    )


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
