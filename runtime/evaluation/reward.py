"""The mean reward of a model's answers, from a judge."""

from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.plan.measures import RewardMeasure
from ..errors import RunError
from ..sampling.draw_files import read_draws
from ..sampling.judging import SCORES
from ..standard_errors import clustered_error
from .passes import best_of, budgets


def reward(measure: RewardMeasure, draws: Path, judged: Path) -> dict[str, Any]:
    """{"score", "stderr", "prompts", "unjudged", "finished"}: the mean reward with its standard
    error, the number of prompts, how many answers are too long for the judge, and the share that
    the model ended itself. Of several answers to each prompt, all of which the judge can read, also
    "best_of": {k: …}, the mean of the highest reward among k.

    Args:
        draws: the result of a draw job.
        judged: the result of the judge job.

    Raises: RunError: the judge cannot read any answer.
    """
    scores = np.load(judged / SCORES)
    rewards = scores[~np.isnan(scores)].tolist()
    if not rewards:
        raise RunError(
            f"all answers for {measure.name} are longer than the judge's context",
            "lower max_tokens, or train the judge with a longer seq_len",
        )
    finished = [draw["finished"] for draw in read_draws(draws)]
    found: dict[str, Any] = {
        "score": sum(rewards) / len(rewards),
        "stderr": _error(scores.reshape(-1, measure.draws)),
        "prompts": len(scores) // measure.draws,
        "unjudged": len(scores) - len(rewards),
        "finished": sum(finished) / len(finished),
    }
    if measure.draws > 1 and len(rewards) == len(scores):
        ranked = np.sort(scores.astype(float).reshape(-1, measure.draws))[:, ::-1].tolist()
        found["best_of"] = {str(k): best_of(k, ranked) for k in budgets(measure.draws)}
    return found


def _error(scores: np.ndarray) -> float | None:
    """The standard error of the mean over prompts, of those with an answer that the judge read."""
    sums, counts = np.nansum(scores, 1, dtype=float), (~np.isnan(scores)).sum(1)
    return clustered_error(
        [(s, n) for s, n in zip(sums.tolist(), counts.tolist(), strict=True) if n]
    )
