"""The loss of multi-token prediction.

Names carry shapes: B sequences, L tokens, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchtitan.components.loss import IGNORE_INDEX, CrossEntropyLoss
from torchtitan.models.deepseek_v3.mtp import roll_mtp_sequence

from .objectives import LanguageLoss


class FurtherLoss(LanguageLoss):
    """The loss of the next token, plus `weight` times that of the tokens behind it.

    The latter is the mean over the modules of the cross-entropy of what each predicts, from a
    place's document alone, divided as the main loss by the number of next tokens
    (arXiv:2412.19437 §2.2, eq. 24 and 25).

    Reported besides what `LanguageLoss` reports: `mtp_loss`, without its weight.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(LanguageLoss.Config):
        pass

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self.weight = 0.0
        """The weight, which is set before each step."""

    def __call__(
        self,
        pred: torch.Tensor | Sequence[torch.Tensor],
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            pred: logits of the next token and of each further one, shape (B, L, V), or this tensor
                rank's share of V; a model that does not learn has those of the next alone.
            labels: the next token, int64, shape (B, L).
            kwargs: `positions`, int64, shape (B, L), which restart at each document.
        """
        if isinstance(pred, torch.Tensor):
            return super().__call__(pred, labels, global_valid_tokens, **kwargs)
        main, *further = pred
        entropy = CrossEntropyLoss.__call__
        loss, metrics = entropy(self, main, labels, global_valid_tokens)
        loss, values = self._with_terms(loss, main, labels, global_valid_tokens)
        total = torch.zeros_like(loss)
        for depth, logits in enumerate(further, 1):
            behind = roll_mtp_sequence(
                labels, shift=depth, fill_value=IGNORE_INDEX, positions=kwargs["positions"]
            )
            assert isinstance(behind, torch.Tensor)
            total = total + entropy(self, logits, behind, global_valid_tokens)[0]
        mean = total / len(further)
        self._tell([*values, mean])
        return loss + self.weight * mean, metrics

    @property
    def _names(self) -> tuple[str, ...]:
        return (*super()._names, "mtp_loss")
