"""Answers in steps: batches of them, and the loss on their steps.

Names carry shapes: N steps that are learned.
"""
# ruff: noqa: N803 (the names of the shapes)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributed.device_mesh import DeviceMesh

from ....compiler.plan.plan import Prm
from ...data.order.packing import step_ends
from ...data.records.shards import Record
from ..objectives import RecordLoss
from .loader import Item, OrderedLoader
from .rows import Row, ask_ends, check_length, scored


class SolutionLoader(OrderedLoader):
    """Yields answers in steps with their prompts, for `StepLoss`.

    Raises:
        DataError: a record is longer than the sequence length.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(OrderedLoader.Config):
        objective: Prm

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective

    def _length(self, source: str, number: int) -> int:
        length = int(self._orders[source].records.branches[number].sum())
        check_length(length, self.timeline.seq_len, source, number)
        return length

    def _laid_out(self, record: Record, source: str, number: int) -> Row:
        return laid_out(record, self._objective)

    def _ask(
        self, items: Sequence[Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        right = [
            label
            for source, number in items
            for label in labels(self._orders[source].records.record(number), self._objective)
        ]
        places = ask_ends(rows, batch["input"].shape[1])["places"]
        return {"places": places, "right": torch.tensor(right)}, len(right)


def laid_out(record: Record, objective: Prm) -> Row:
    """A prompt with its answer, scored at the last token of each step that is learned."""
    return scored(record.tokens, step_ends(record.branches, last=objective.loss_on == "last"))


def labels(record: Record, objective: Prm) -> Sequence[bool]:
    """Whether each step that is learned is right."""
    return record.labels[-1:] if objective.loss_on == "last" else record.labels


def step_losses(scores_N: torch.Tensor, right_N: torch.Tensor) -> torch.Tensor:
    """The binary cross-entropy of each step, in nats: shape (N,)."""
    return F.binary_cross_entropy_with_logits(scores_N, right_N.to(scores_N), reduction="none")


class StepLoss(RecordLoss):
    """Which steps of an answer are right (Lightman et al.: Let's verify step by step,
    arXiv:2305.20050, §2.6; Uesato et al., arXiv:2211.14275, §2.5).

    With z the score of a step, the model's output at its last token, the loss of the step is
    −log σ(z) if it is right, and −log (1 − σ(z)) if it is wrong. The loss of a batch is the mean
    over all steps in it. Two logits, as TRL's PRMTrainer has them, give the same with their
    difference as z.

    Reported: `accuracy`, the share of steps on the right side of σ(z) = ½, and, as far as the batch
    has such steps, `right_accuracy` and `wrong_accuracy`, the shares of right steps and of wrong
    ones.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Prm

    names = ("accuracy", "right", "right_accuracy", "wrong_accuracy")

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: scores, shape (N,).
            rows: `right`, bool, shape (N,).
        """
        right = rows["right"]
        said = (pred > 0) == right
        self._count(said, right, said & right, said & ~right, tokens=rows["tokens"])
        return step_losses(pred, right).sum()

    def collect(self, mesh: DeviceMesh | None) -> tuple[dict[str, float], int]:
        found, tokens = super().collect(mesh)
        right = found.pop("right")
        for name, part in (("right", right), ("wrong", 1 - right)):
            said = found.pop(f"{name}_accuracy")
            if part:
                found[f"{name}_accuracy"] = said / part
        return found, tokens


def score_of(scores: np.ndarray, combine: str) -> float:
    """The score of an answer, from the scores z of its steps, whose probabilities of being right
    are p = σ(z): Π p, the probability that all are (Lightman et al., arXiv:2305.20050); the
    least p (Wang et al.: Math-Shepherd, arXiv:2312.08935); or the last one.

    Args:
        scores: float64, shape (steps,).
    """
    log = -np.logaddexp(0, -scores)
    return float(
        np.exp({"product": log.sum, "minimum": log.min, "last": lambda: log[-1]}[combine]())
    )
