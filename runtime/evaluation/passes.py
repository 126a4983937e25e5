"""What several answers to each prompt tell: pass@k, the best of k."""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, fsum


def budgets(draws: int) -> list[int]:
    """1, 2, 4, … up to the number of draws."""
    return [1 << power for power in range(draws.bit_length())]


def pass_at(k: int, right: Sequence[int], draws: int) -> float:
    """The probability that one of k answers to a prompt is right, mean over prompts: the unbiased
    estimator 1 − C(n − c, k) / C(n, k) from c right ones of n (Chen et al., arXiv:2107.03374,
    eq. 1).

    Args:
        right: right answers of each prompt.
    """
    every = comb(draws, k)
    return float(1 - sum(Fraction(comb(draws - c, k), every) for c in right) / len(right))


def best_of(k: int, values: Sequence[Sequence[float]]) -> float:
    """The mean value of the answer that ranks first among k, mean over prompts: for each prompt
    over all choices of k of its answers, that is, the one that ranks i-th of n, from 0, with the
    probability C(n − 1 − i, k − 1) / C(n, k).

    Args:
        values: of each prompt's answers, the first-ranked one first.
    """
    found = []
    for of in values:
        n = len(of)
        shares = (comb(n - 1 - i, k - 1) / comb(n, k) for i in range(n))
        found.append(fsum(share * value for share, value in zip(shares, of, strict=True)))
    return fsum(found) / len(found)
