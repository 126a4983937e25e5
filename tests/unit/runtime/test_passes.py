"""pass@k and the best of k, against all choices of k answers."""

import itertools
import random
import statistics
from math import isclose

import pytest

from etude.runtime.evaluation.passes import best_of, budgets, pass_at
from etude.runtime.standard_errors import clustered_error, standard_error


def choices(count: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(count), k))


@pytest.mark.parametrize("draws", [1, 2, 4, 7])
def test_pass_at_k_is_the_share_of_choices_with_a_right_answer(draws):
    of = list(range(draws + 1))
    for k in range(1, draws + 1):
        shares = [
            sum(any(place < c for place in each) for each in choices(draws, k))
            / len(choices(draws, k))
            for c in of
        ]
        assert isclose(pass_at(k, of, draws), sum(shares) / len(shares))


def test_pass_at_1_is_the_accuracy_and_pass_at_n_whether_any_is_right():
    assert pass_at(1, [0, 1, 4], 4) == pytest.approx(5 / 12)
    assert pass_at(4, [0, 1, 4], 4) == pytest.approx(2 / 3)


def test_an_estimate_from_few_answers_is_unbiased():
    chance = random.Random(1)
    found = [sum(chance.random() < 0.2 for _ in range(8)) for _ in range(20_000)]
    assert pass_at(4, found, 8) == pytest.approx(1 - 0.8**4, abs=0.01)


@pytest.mark.parametrize("draws", [1, 3, 6])
def test_the_best_of_k_is_the_mean_over_choices_of_what_ranks_first(draws):
    chance = random.Random(draws)
    values = [[chance.random() for _ in range(draws)] for _ in range(3)]
    for k in range(1, draws + 1):
        firsts = [of[min(each)] for of in values for each in choices(draws, k)]
        assert isclose(best_of(k, values), sum(firsts) / len(firsts))


def test_budgets_double_up_to_the_number_of_draws():
    assert [budgets(count) for count in (1, 2, 3, 4, 9)] == [
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 8],
    ]


def test_the_standard_error_is_that_of_a_mean_of_prompts():
    assert standard_error([0.0, 1.0, 1.0, 1.0]) == pytest.approx(0.25)
    assert standard_error([1.0, 1.0]) == 0
    assert standard_error([0.5]) is None


def test_values_of_a_cluster_are_not_independent():
    assert clustered_error([(2 * mean, 2) for mean in (0.0, 1.0, 1.0, 1.0)]) == 0.25
    assert clustered_error([(3.0, 6)]) is None


def test_the_clustered_error_is_how_much_the_mean_varies():
    """Over samples of documents of different lengths, whose tokens share most of their value."""
    chance = random.Random(3)
    means, errors = [], []
    for _ in range(200):
        sizes = [chance.randint(1, 9) for _ in range(40)]
        shared = [(chance.gauss(0, 1), size) for size in sizes]
        clusters = [(of * size + chance.gauss(0, 0.1), size) for of, size in shared]
        means.append(sum(total for total, _ in clusters) / sum(sizes))
        errors.append(clustered_error(clusters))
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(means), rel=0.15)
