"""The judge: a reward model that scores every answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from .. import stopping
from ..errors import RunError

BATCH_TOKENS = 16_384
"""Tokens that go through the judge at a time."""


class Judge:
    """A Hugging Face model for sequence classification with one label.

    Args:
        folder: of the exported reward model.

    Raises: RunError: the folder holds no such model.
    """

    def __init__(self, folder: Path) -> None:
        check(folder)
        logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32
        )
        self._network.to(device).eval()
        self.context: int = self._network.config.max_position_embeddings

    @torch.inference_mode()
    def score(self, sequences: list[np.ndarray]) -> list[float | None]:
        """The reward of each sequence of tokens, int64 (n,), read at its last token; None where
        it is longer than the judge's context.

        Raises: RunError: a reward is not finite.
        """
        rewards: list[float | None] = [None] * len(sequences)
        fit = [i for i, each in enumerate(sequences) if len(each) <= self.context]
        order = sorted(fit, key=lambda i: (len(sequences[i]), i))
        while order:
            stopping.check("draws without a score are judged later")
            longest = len(sequences[order[-1]])
            rows = max(BATCH_TOKENS // longest, 1)
            batch, order = order[-rows:], order[:-rows]
            for i, reward in zip(batch, self._batch([sequences[i] for i in batch]), strict=True):
                rewards[i] = reward
        return rewards

    def _batch(self, sequences: list[np.ndarray]) -> list[float]:
        lengths = torch.tensor([len(each) for each in sequences])
        tokens = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
        for row, each in zip(tokens, sequences, strict=True):
            row[: len(each)] = torch.from_numpy(each)
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        device = self._network.device
        hidden = self._network.base_model(
            input_ids=tokens.to(device), attention_mask=mask.to(device)
        ).last_hidden_state
        # The model's own pooling looks for the last token that is no padding, and takes a
        # terminator for padding where both are the same token.
        last = hidden[torch.arange(len(sequences), device=device), (lengths - 1).to(device)]
        rewards = self._network.score(last).float()[:, 0]
        if not torch.isfinite(rewards).all():
            raise RunError("the judge gave a reward that is not finite", "train it again")
        return rewards.tolist()


def check(folder: Path) -> None:
    """Raises: RunError: the folder holds no model for sequence classification with one label."""
    help = "name a stage of kind `reward` as the judge"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as problem:
        raise RunError(f"the judge {folder} is not an exported model: {problem}", help) from None
    kinds = config.get("architectures") or []
    if not any(str(kind).endswith("ForSequenceClassification") for kind in kinds):
        what = ", ".join(map(str, kinds)) or "a model of unknown kind"
        raise RunError(f"the judge {folder} is not a reward model, but {what}", help)
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if labels != 1:
        raise RunError(
            f"the judge {folder} is not a reward model: it has {labels} labels, not one", help
        )
