"""Batches of dialogs: rows that are packed with them, or dialogs that are counted; and the loss of
the latter.

Names carry shapes: N learned tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...data.order.packing import Packing, pack_dialogs
from ...data.records.shards import Record
from ..loader import Batch, Loader, check_targets, check_vocab
from ..objectives import RecordLoss
from .loader import Item, OrderedLoader
from .rows import Row, ask_tokens, check_length, dialog_row


class DialogLoader(Loader):
    """Yields packed rows of dialogs; see `packing`.

    Where rows may have any length, those of a step go into micro-batches the fullest first, and a
    micro-batch is as long as its fullest row of all ranks.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Loader.Config):
        packings: Mapping[str, Packing]
        every_token: bool
        multiple: int | None
        """The multiple of tokens that rows are padded to; None: all have the sequence length."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._packings = config.packings
        self._every_token = config.every_token
        self._multiple = config.multiple

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        if self._multiple is None:
            yield from super()._micro_batches(step)
            return
        for indices, length in self._by_fullness(step):
            batch, labels = self._read(step, indices)
            width = -(-length // self._multiple) * self._multiple
            cut = {name: tensor[:, :width].contiguous() for name, tensor in batch.items()}
            yield cut, labels[:, :width].contiguous()

    def _by_fullness(self, step: int) -> Iterator[tuple[list[int], int]]:
        """This rank's rows of each micro-batch, and the tokens of the fullest row of all ranks."""
        filled = [self._filled(step, index) for index in range(self.timeline.batch(step))]
        order = sorted(range(len(filled)), key=lambda index: (-filled[index], index))
        for start in range(0, len(order), self._micro_batch):
            first = start + self._rank * self._local_batch
            yield order[first : first + self._local_batch], filled[order[start]]

    def _filled(self, step: int, index: int) -> int:
        """Tokens of a row without its padding."""
        source, position = self._locate(step, index)
        return self._packings[source].filled(position // self.timeline.seq_len)

    def _fill(
        self, step: int, index: int, inputs: np.ndarray, labels: np.ndarray, positions: np.ndarray
    ) -> None:
        source, position = self._locate(step, index)
        length = self.timeline.seq_len
        ordinal, packing = position // length, self._packings[source]
        row = pack_dialogs(packing.read(ordinal), length, every_token=self._every_token)
        check_vocab(row[0], source, self._vocab)
        numbers = ", ".join(map(str, packing.row(ordinal)))
        check_targets(row[1], source, f"record {numbers}")
        inputs[:], labels[:], positions[:] = row


class CountedDialogs(OrderedLoader):
    """Yields as many dialogs as a batch counts, in rows of any length, for `DialogLoss`.

    Raises: DataError: a dialog is longer than the sequence length.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(OrderedLoader.Config):
        every_token: bool

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._every_token = config.every_token

    def _length(self, source: str, number: int) -> int:
        tokens = int(self._orders[source].records.lengths[number])
        check_length(tokens, self.timeline.seq_len, source, number)
        return tokens - 1  # nothing follows the last one

    def _laid_out(self, record: Record, source: str, number: int) -> Row:
        return dialog_row(record, every_token=self._every_token)

    def _ask(
        self, items: Sequence[Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        asked = ask_tokens(rows, batch["input"].shape[1], "none")
        return {name: asked[name] for name in ("places", "targets")}, len(asked["places"])


class DialogLoss(RecordLoss):
    """The cross-entropy of what is learned of the dialogs of a batch, as a mean over its tokens,
    like that of rows that are packed with dialogs."""

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        pass

    names = ()

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: cross-entropies of learned tokens, shape (N,).
        """
        count = torch.full_like(rows["tokens"], len(pred))
        self._add(torch.stack([count, rows["tokens"]]).double())
        return pred.sum()
