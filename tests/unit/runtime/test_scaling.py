"""Scaling laws fitted to runs: known laws are found again."""

import random

import pytest

from etude.runtime.reporting.scaling import Law, Observed, fitted

pytest.importorskip("scipy")
PUBLISHED = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
"""arXiv:2203.15556, equation 10."""
SIZES, TOKENS = (1e8, 4e8, 1.6e9), (2e9, 8e9, 3e10)


def loss(parameters: float, tokens: float) -> float:
    return 1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28


def grid() -> list[Observed]:
    return [Observed(n, d, loss(n, d)) for n in SIZES for d in TOKENS]


def test_the_law_that_made_the_losses_is_found() -> None:
    law = fitted(grid())
    assert law
    assert law.values == pytest.approx(PUBLISHED, rel=1e-4)
    assert law.error < 1e-6
    for name, value in PUBLISHED.items():
        assert law.band(name) == pytest.approx((value, value), rel=1e-3)


def test_noise_widens_the_ranges_and_shows_in_the_error() -> None:
    draw = random.Random(3)
    noisy = [each._replace(loss=each.loss * (1 + draw.gauss(0, 0.002))) for each in grid()]
    law = fitted(noisy)
    assert law
    assert 1e-4 < law.error < 0.01
    bands = {name: law.band(name) for name in PUBLISHED}
    assert all(low < PUBLISHED[name] < high for name, (low, high) in bands.items())
    assert bands["alpha"][1] - bands["alpha"][0] < 0.16
    best, larger = law.best(6e20), law.best(6e24)
    assert best
    assert larger
    assert best.of_loss[0] < loss(best.parameters, best.tokens) < best.of_loss[1]
    widths = [high / low for low, high in (best.of_parameters, larger.of_parameters)]
    assert 1 < widths[0] < widths[1]  # farther away it is less certain
    assert fitted(noisy) == law  # the same draws


def test_where_only_parameters_or_only_tokens_vary_one_term_is_fitted() -> None:
    law = fitted([Observed(n, 2e9, 2.0 + 300 / n**0.3) for n in (*SIZES, 6e9)])
    assert law
    assert law.values == pytest.approx({"E": 2.0, "A": 300.0, "alpha": 0.3}, rel=1e-4)
    assert law.best(1e20) is None
    law = fitted([Observed(1e8, d, 2.0 + 300 / d**0.3) for d in (*TOKENS, 9e10)])
    assert law
    assert law.values == pytest.approx({"E": 2.0, "B": 300.0, "beta": 0.3}, rel=1e-4)


def test_too_few_points_have_no_law() -> None:
    assert fitted([]) is None
    assert fitted(grid()[:2]) is None
    assert fitted([Observed(n, 2e9, 2.0 + 300 / n**0.3) for n in SIZES]) is None
    assert fitted([Observed(1e8, 2e9, 3.0)] * 9) is None


def test_losses_that_do_not_fall_have_no_optimum_and_break_nothing() -> None:
    rising = [each._replace(loss=1 + each.parameters / 1e9 + each.tokens / 1e10) for each in grid()]
    law = fitted(rising)
    assert law
    assert all(value == value for value in law.values.values())
    assert law.error > 0.1
    assert law.best(1e20) is None


def test_the_optimum_has_the_least_loss_of_its_budget() -> None:
    law = Law(PUBLISHED, (), 0.0)
    found = law.best(6e20)
    assert found
    parameters, tokens = found.parameters, found.tokens
    assert 6 * parameters * tokens == pytest.approx(6e20)
    least = loss(parameters, tokens)
    for factor in (0.9, 1.1):
        assert loss(parameters * factor, tokens / factor) > least
