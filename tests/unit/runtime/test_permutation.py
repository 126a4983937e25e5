"""A permutation without a table is one, for every count, and no order is favoured."""

from collections import Counter
from math import factorial

import numpy as np
import pytest

from etude.runtime.data.order.permutation import Permutation, digest, shuffled


def order(count: int, *key: object) -> np.ndarray:
    return Permutation(count, digest(*key))(np.arange(count))


def z_score(observed: np.ndarray, expected: float) -> float:
    """How far from chance the counts are, in standard deviations of chi-squared."""
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


@pytest.mark.parametrize("begin", range(1, 5001, 500))
def test_every_number_comes_once(begin):
    for count in range(begin, begin + 500):
        assert np.bincount(order(count, 1), minlength=count).tolist() == [1] * count


@pytest.mark.parametrize("count", [10**7, 10**10, 2**40 + 1, 2**61])
def test_large_counts(count):
    """Any places, without those before; what is mapped back would have to be a number twice."""
    places = np.concatenate([np.arange(5000), count - 1 - np.arange(5000)])
    numbers = Permutation(count, b"key")(places)
    assert numbers.dtype == np.int64
    assert len(set(numbers.tolist())) == 10_000
    assert numbers.min() >= 0
    assert numbers.max() < count
    counts = np.histogram(numbers / count, bins=100, range=(0, 1))[0]
    assert abs(z_score(counts, 100)) < 5


def test_one_place_is_what_it_is_among_all():
    whole = order(3000, 7)
    one = Permutation(3000, digest(7))
    assert [int(one(np.array([place]))[0]) for place in range(0, 3000, 97)] == whole[::97].tolist()


@pytest.mark.parametrize("places", [[-1], [10], [3, 11]])
def test_places_that_do_not_exist(places):
    with pytest.raises(IndexError, match="no such place among 10"):
        Permutation(10, b"key")(np.array(places))


@pytest.mark.parametrize("count", [0, -1, 2**62])
def test_counts_that_cannot_be_permuted(count):
    with pytest.raises(ValueError, match="cannot permute"):
        Permutation(count, b"key")


@pytest.mark.parametrize("count", [2, 3, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_all_orders_are_equally_likely(count):
    trials = 60 * factorial(count)
    found = Counter(tuple(order(count, seed).tolist()) for seed in range(trials))
    assert len(found) == factorial(count)
    assert abs(z_score(np.array(list(found.values())), 60)) < 5


@pytest.mark.parametrize("count", [100, 1000])
def test_every_number_is_equally_likely_everywhere(count):
    """Of 300 keys: which tenth of the numbers is in which tenth of the places."""
    table = np.zeros((10, 10))
    tenth = np.arange(count) * 10 // count
    for seed in range(300):
        np.add.at(table, (tenth, tenth[order(count, seed)]), 1)
    # Rows and columns add up in every order, so that there are 9 × 9 degrees of freedom.
    expected = 300 * count / 100
    chi = ((table - expected) ** 2 / expected).sum() * (count - 1) / count
    assert abs(chi - 81) / (2 * 81) ** 0.5 < 5


def test_an_order_keeps_nothing_of_that_of_the_numbers():
    fixed, rising, steps = [], [], Counter()
    for seed in range(400):
        numbers = order(2000, seed)
        fixed.append(int((numbers == np.arange(2000)).sum()))
        rising.append(float((np.diff(numbers) > 0).mean()))
        steps.update(np.diff(numbers).tolist())
    # As in random orders: one number in its place, half of the steps up, and of all steps, each
    # of one up about once an order.
    assert np.mean(fixed) == pytest.approx(1, abs=0.25)
    assert np.mean(rising) == pytest.approx(0.5, abs=0.002)
    assert steps[1] == pytest.approx(400, abs=100)
    assert steps[-1] == pytest.approx(400, abs=100)


def test_orders_of_other_keys_and_counts_are_unrelated():
    one = order(5000, 1)
    for other in (order(5000, 2), order(5001, 1)[:5000], shuffled(5000, 1)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.07
        assert (one == other).sum() < 12


def test_the_order_is_the_same_for_ever():
    """Changing it would change what a resumed run reads."""
    assert order(10, 1).tolist() == [8, 5, 7, 0, 6, 2, 1, 3, 9, 4]
    large = Permutation(10**10, digest(1))(np.arange(4)).tolist()
    assert large == [2145840064, 6899609149, 1043868500, 4747201594]
