"""Held-out loss: mean cross-entropy of documents that are never trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ...compiler.plan.measures import LossMeasure
from ..data.shards import Shards
from ..errors import DataError

BATCH_TOKENS = 16_384
"""Tokens that go through the model at a time."""


def loss(measure: LossMeasure, network: Any, data: Mapping[str, Path]) -> dict[str, Any]:
    """{"score", "tokens", "sources": source → loss}, in nats a token.

    Raises: DataError: a source holds no documents out.
    """
    sources: dict[str, float] = {}
    total, tokens = 0.0, 0
    for name in measure.data:
        windows = _windows(Shards(data[name], "heldout"), measure.seq_len, measure.tokens)
        if not windows:
            raise DataError(
                f"the data set `{name}` has no held-out documents, so no loss can be measured on "
                "it",
                f"hold out a larger share: holdout = 5% in dataset {name}",
            )
        nats, count = _cross_entropy(network, windows)
        sources[name] = nats / count
        total, tokens = total + nats, tokens + count
    return {"score": total / tokens, "tokens": tokens, "sources": sources}


def _windows(shards: Shards, seq_len: int, limit: int) -> list[np.ndarray]:
    """Held-out documents cut into windows of at most seq_len + 1 tokens, `limit` tokens in all."""
    windows: list[np.ndarray] = []
    total = 0
    for number in range(shards.documents):
        document = shards.document(number)
        for start in range(0, len(document) - 1, seq_len):
            window = np.asarray(document[start : start + seq_len + 1], dtype=np.int64)
            windows.append(window)
            total += len(window) - 1
            if total >= limit:
                return windows
    return windows


def _cross_entropy(network: Any, windows: list[np.ndarray]) -> tuple[float, int]:
    """Summed cross-entropy in nats and number of labels; windows of like length go together."""
    nats, count = 0.0, 0
    windows = sorted(windows, key=len)
    while windows:
        rows = max(BATCH_TOKENS // len(windows[-1]), 1)
        batch, windows = windows[-rows:], windows[:-rows]
        width = len(batch[-1])
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        labels = torch.full((len(batch), width - 1), -100)
        for row, window in enumerate(batch):
            tokens[row, : len(window)] = torch.from_numpy(window)
            labels[row, : len(window) - 1] = torch.from_numpy(window[1:])
        logits = network(tokens[:, :-1].to(network.device)).logits.float()
        nats += cross_entropy(
            logits.flatten(0, 1), labels.flatten().to(network.device), reduction="sum"
        ).item()
        count += int((labels != -100).sum())
    return nats, count
