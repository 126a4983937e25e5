"""What several answers to each prompt tell: accuracy with its error, pass@k, the best of k."""

from collections.abc import Sequence
from fractions import Fraction
from math import comb, fsum, sqrt


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


def standard_error(means: Sequence[float]) -> float | None:
    """Of the mean of independent prompts, each with the mean of its answers: √(s² / n), with the
    sample variance s² (Miller, arXiv:2411.00640). None for a single prompt.
    """
    return clustered_error([(mean, 1) for mean in means])


def clustered_error(clusters: Sequence[tuple[float, float]]) -> float | None:
    """Of the mean of values that come in clusters, such as the tokens of documents, which are not
    independent of each other: √(G / (G − 1) · Σ (s − m · n)²) / N over G clusters with the sums s
    and the sizes n, where m = Σ s / N and N = Σ n (Miller, arXiv:2411.00640, eq. 4, with the
    factor that makes it `standard_error` where all clusters have one value). None for one cluster.

    Args:
        clusters: the sum and the size of each.
    """
    count, whole = len(clusters), fsum(size for _, size in clusters)
    if count < 2:
        return None
    mean = fsum(total for total, _ in clusters) / whole
    off = fsum((total - mean * size) ** 2 for total, size in clusters)
    return sqrt(count / (count - 1) * off) / whole
