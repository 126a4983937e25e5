"""How well a reward model agrees with human rankings."""

from collections.abc import Mapping
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.as_written import counted
from ...compiler.plan.measures import AccuracyMeasure
from ..data.record_shards import Records
from ..errors import DataError
from ..sampling.judge import Judge

RECORDS = 256
"""Records that are scored together."""


def accuracy(measure: AccuracyMeasure, judge: Judge, data: Mapping[str, Path]) -> dict[str, Any]:
    """{"score", "pairs", "margin", "sources": source → share}.

    The score is the share of ordered pairs of held-out responses whose better one has the higher
    reward (an equal one is not higher), the margin the mean difference of the rewards.

    Raises:
        DataError: a source holds no preferences out, or is damaged.
        RunError: a response is longer than the model's context.
    """
    margins: list[float] = []
    sources: dict[str, float] = {}
    for name in measure.data:
        records = Records(data[name], "heldout")
        if records.form != "preferences" or not records.count:
            raise DataError(
                f"the data set `{name}` has no held-out preferences, so no accuracy can be "
                "measured on it",
                f"hold out a larger share: holdout = 5% in dataset {name}",
            )
        found = _margins(records, judge, name)
        sources[name] = _share(found)
        margins += found
    return {
        "score": _share(margins),
        "pairs": len(margins),
        "margin": sum(margins) / len(margins),
        "sources": sources,
    }


def _margins(records: Records, judge: Judge, name: str) -> list[float]:
    """Reward of the better less that of the worse, over the ordered pairs of every record."""
    margins: list[float] = []
    numbers = iter(range(records.count))
    while chunk := list(islice(numbers, RECORDS)):
        texts = [_texts(records, number) for number in chunk]
        rewards = iter(judge.score([each for text in texts for each in text]))
        for number, responses in zip(chunk, texts, strict=True):
            ranked = list(islice(rewards, len(responses)))
            if any(reward is None for reward in ranked):
                raise DataError(
                    f"held-out record {number} of `{name}` is longer than the reward model's "
                    f"context of {counted(judge.context, 'tokens')}",
                    "train the reward model with a longer seq_len",
                )
            margins += [
                better - worse
                for better, worse in combinations(ranked, 2)
                if better is not None and worse is not None
            ]
    return margins


def _texts(records: Records, number: int) -> list[np.ndarray]:
    """The prompt with each of a record's responses, the best first."""
    record = records.record(number)
    prompt, *rest = np.split(record.tokens, np.cumsum(record.branches)[:-1])
    return [np.concatenate([prompt, response]) for response in rest]


def _share(margins: list[float]) -> float:
    return sum(margin > 0 for margin in margins) / len(margins)
