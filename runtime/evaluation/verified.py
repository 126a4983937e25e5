"""The share of a model's answers that a verifier finds right, and pass@k."""

from itertools import islice
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.plan.measures import VerifiedMeasure
from .. import verification
from ..sampling.draw_files import read_draws
from ..sampling.judging import SCORES
from ..sampling.prompts import records
from ..standard_errors import standard_error
from .passes import best_of, budgets, pass_at


def verified(
    measure: VerifiedMeasure, draws: Path, prompts: Path, judged: Path | None, root: Path
) -> dict[str, Any]:
    """{"score", "stderr", "prompts", "draws", "finished", "pass": {k: …}}: the share of right
    answers with its standard error, how many prompts and answers to each there are, the share that
    the model ended itself, and pass@k. With a judge also "best_of": {k: …}, the share of prompts
    for which the one that it prefers of k answers is right.

    Args:
        draws: the result of a draw job.
        prompts: the folder with prompts.jsonl.
        judged: the result of the judge job, if there is one.
        root: the folder of the spec.

    Raises:
        RunError: the verifier cannot be used.
        DataError: the prompts are damaged.
        Interrupted: asked to stop.
    """
    (name,) = measure.verify
    asked = islice(records(prompts / "prompts.jsonl"), measure.limit)
    every = read_draws(draws)
    answers = ((record, draw) for record in asked for draw in islice(every, measure.draws))
    what = f"{measure.name} is measured again, and no answer is lost"
    each = verification.verified(measure.verify, root, answers, what)
    values: list[list[float]] = []
    finished = 0
    while of := list(islice(each, measure.draws)):
        values.append([scores[name] for _, _, scores in of])
        finished += sum(draw["finished"] for _, draw, _ in of)
    means = [fsum(of) / len(of) for of in values]
    right = [sum(value >= 1 for value in of) for of in values]
    found = {
        "score": fsum(means) / len(means),
        "stderr": standard_error(means),
        "prompts": len(values),
        "draws": measure.draws,
        "finished": finished / (len(values) * measure.draws),
        "pass": {str(k): pass_at(k, right, measure.draws) for k in budgets(measure.draws)},
    }
    if judged is not None and measure.draws > 1:
        ranked = _ranked(values, np.load(judged / SCORES))
        found["best_of"] = {str(k): best_of(k, ranked) for k in budgets(measure.draws)}
    return found


def _ranked(values: list[list[float]], rewards: np.ndarray) -> list[list[float]]:
    """The values of each prompt's answers, what the judge likes most first; what it cannot read
    last."""
    found = []
    every = iter(np.where(np.isnan(rewards), -np.inf, rewards).tolist())
    for of in values:
        own = list(islice(every, len(of)))
        order = sorted(range(len(of)), key=lambda place: -own[place])
        found.append([of[place] for place in order])
    return found
