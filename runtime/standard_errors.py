"""Standard errors of means: how much they would vary with other data of the same kind."""

from collections.abc import Sequence
from math import fsum, sqrt


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
