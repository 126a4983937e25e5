"""Batches of preferences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....compiler.plan.plan import Dpo, Reward
from ...data.order.packing import compared
from ...data.records.shards import Record
from ...errors import DataError
from . import rewards
from .loader import Item, ReferencedLoader
from .rows import (
    Row,
    ask_ends,
    ask_tokens,
    check_counts,
    check_different,
    check_length,
    lay_out,
    row_length,
)


class PreferenceLoader(ReferencedLoader):
    """Yields preferences, for the losses in `objectives`.

    Raises:
        DataError: a record is longer than the sequence length, or a response has no tokens that
            count.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(ReferencedLoader.Config):
        objective: Reward | Dpo

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective

    def _length(self, source: str, number: int) -> int:
        branches = self._branches(source, number)
        return row_length(branches, self._responses(branches), self._objective.layout)

    def _laid_out(self, record: Record, source: str, number: int) -> Row:
        row = lay_out(record, self._responses(record.branches), self._objective.layout)
        if isinstance(self._objective, Dpo) and not self._references:
            # Where there is a reference, its job has checked this.
            check_different(row, self._objective.mask, source, number)
        return row

    def _ask(
        self, items: Sequence[Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        width = batch["input"].shape[1]
        if isinstance(self._objective, Reward):
            return self._ask_scores(items, rows, width)
        asked = ask_tokens(rows, width, self._objective.mask)
        check_counts(asked["counts"].view(-1, 2), items)
        if self._references:
            asked["reference"] = self._referenced(items)
        return asked, len(items)

    def _ask_scores(
        self, items: Sequence[Item], rows: Sequence[Row], width: int
    ) -> tuple[dict[str, torch.Tensor], int]:
        """Where each response ends, and which scores are compared."""
        assert isinstance(self._objective, Reward)
        found, count = rewards.compared(
            self._objective, [count for row in rows for count in row.responses]
        )
        if self._objective.margin != "none":
            found["margins"] = torch.tensor([self._margin(*item) for item in items])
        return {"places": ask_ends(rows, width)["places"], **found}, count

    def _margin(self, source: str, number: int) -> float:
        margins = self._orders[source].records.margins
        if margins is None:
            raise DataError(
                f"the data set `{source}` was made without margins",
                "remove its artifact; the next run makes it again",
            )
        return float(margins[number])

    def _branches(self, source: str, number: int) -> list[int]:
        branches = [int(n) for n in self._orders[source].records.branches[number] if n]
        check_length(sum(branches), self.timeline.seq_len, source, number)
        return branches

    def _responses(self, branches: Sequence[int]) -> Sequence[int]:
        """Which responses the loss needs, best first."""
        return compared(len(branches) - 1, ends=isinstance(self._objective, Dpo))

    def _reference(self, source: str, number: int) -> np.ndarray:
        row = self._references[source][number]
        known = row[~np.isnan(row)]
        if len(known) != len(self._branches(source, number)) - 1:
            raise DataError(
                f"the reference log-probabilities of record {number} of `{source}` do not match "
                "its responses",
                "remove the artifact of the reference; the next run rebuilds it",
            )
        return known[[0, -1]]
