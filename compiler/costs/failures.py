"""The cost of failures of a cluster: how long a run takes with them, and how often to save.

The model is that of J. T. Daly, "A higher order estimate of the optimum checkpoint interval for
restart dumps", Future Generation Computer Systems 22 (2006), doi:10.1016/j.future.2004.11.016:
failures come at random, one every `mtbf` seconds on average; each loses the training since the last
checkpoint, and `restart` seconds.
"""

from math import exp, expm1, inf, sqrt

NEVER = 100.0
"""Multiples of the time between failures above which nothing ever finishes: e^100 attempts."""


def with_failures(
    seconds: float, *, between: float, save: float, restart: float, mtbf: float
) -> float:
    """Expected seconds of a job that takes `seconds` without failures.

    Daly's complete model: M e^(R/M) (e^((τ+δ)/M) − 1) T/τ.

    Args:
        between: τ, seconds of training between two checkpoints.
        save: δ, seconds that training pauses for each checkpoint.
        restart: R, seconds from a failure until training continues.
        mtbf: M, seconds between two failures of the whole cluster, on average.

    Returns: infinity if failures come so often that a job practically never ends.
    """
    between = min(between, seconds)
    if not between:
        return 0.0
    if (restart + between + save) / mtbf > NEVER:
        return inf
    return mtbf * exp(restart / mtbf) * expm1((between + save) / mtbf) * seconds / between


def best_interval(save: float, mtbf: float) -> float:
    """Seconds of training between two checkpoints that minimize the time of a run.

    Daly's approximation, √(2δM) [1 + ⅓ √(δ/2M) + ⅑ (δ/2M)] − δ below δ = 2M, else M. Its first term
    is that of J. W. Young, "A first order approximation to the optimum checkpoint interval",
    Communications of the ACM 17 (1974).
    """
    if save >= 2 * mtbf:
        return mtbf
    ratio = save / (2 * mtbf)
    return sqrt(2 * save * mtbf) * (1 + sqrt(ratio) / 3 + ratio / 9) - save
