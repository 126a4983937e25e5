"""Batches of records: dialogs, preferences, rated answers, or a model's own answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.order.balance import micro_batches as balanced_rows
from ...data.order.packing import Shuffled
from ...data.order.stream import IGNORE
from ...data.records.shards import Record
from ..loader import AHEAD, Batch, Loader, check_vocab
from .rows import Row, collate, join, read_reference

Item = tuple[str, int]
"""A source, and the number of one of its records."""
_Packed = tuple[int, list[list[Item]]]


class RecordLoader(Loader):
    """Yields records, for losses that ask the model about places in their rows.

    The records of a step are packed into rows of at most the sequence length, all of about the same
    length (`balance`), and these are cut into as few micro-batches of up to dp_world_size ×
    local_batch_size rows as they fill. Rank r has the r-th slice of each, padded to the longest
    row of all ranks.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Loader.Config):
        multiple: int
        """The multiple of tokens that rows are padded to."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._multiple = config.multiple
        # The trainer asks how many micro-batches there are while the reader is steps ahead.
        self._packed = lru_cache(maxsize=AHEAD + 2)(self._pack)

    def micro_batches(self, step: int) -> int:
        return len(self._packed(step))

    def _pack(self, step: int) -> list[_Packed]:
        """The micro-batches of a step: the tokens of the longest row, and the rows of all ranks."""
        found = []
        for index in range(self.timeline.batch(step)):
            source, position = self._locate(step, index)
            number, length = self._find(source, position // self.timeline.seq_len)
            found.append((length, source, number))
        # No rank's rows depend on where in the step a record came.
        found.sort(key=lambda item: (-item[0], item[1], item[2]))
        lengths = [length for length, *_ in found]
        ranks, room = self._micro_batch // self._local_batch, self.timeline.seq_len
        return [
            (
                sum(lengths[item] for item in rows[0]),
                [[found[item][1:] for item in row] for row in rows],
            )
            for rows in balanced_rows(lengths, ranks=ranks, rows=self._local_batch, room=room)
        ]

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        for length, rows in self._packed(step):
            each = len(rows) * self._local_batch // self._micro_batch
            yield self._batch(rows[self._rank * each : (self._rank + 1) * each], length)

    def _batch(self, items: Sequence[Sequence[Item]], length: int) -> Batch:
        rows = [join([self._row(*item) for item in row]) for row in items]
        batch = collate(rows, self._multiple, length)
        asked, count = self._ask([item for row in items for item in row], rows, batch)
        batch |= asked
        batch["tokens"] = torch.tensor(sum(len(row.tokens) for row in rows))
        # torchtitan divides the loss by the number of labels it finds.
        labels = torch.full_like(batch["input"], IGNORE)
        labels.view(-1)[:count] = 0
        return batch, labels

    def _find(self, source: str, ordinal: int) -> tuple[int, int]:
        """The number of the record at this place of a source's order, and the tokens of its row."""
        raise NotImplementedError

    def _row(self, source: str, number: int) -> Row:
        """A record as the model reads it."""
        raise NotImplementedError

    def _ask(
        self, items: Sequence[Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        """What the loss gets besides, and how many things it is a mean over.

        Args:
            items: the records of the rows, in their order.
            batch: the rows as the model reads them.
        """
        raise NotImplementedError


class OrderedLoader(RecordLoader):
    """Yields the records of data sets, each epoch in an order of its own."""

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoader.Config):
        orders: Mapping[str, Shuffled]

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._orders = config.orders

    def _find(self, source: str, ordinal: int) -> tuple[int, int]:
        number = self._orders[source].index(ordinal)
        return number, self._length(source, number)

    def _row(self, source: str, number: int) -> Row:
        record = self._record(source, number)
        check_vocab(record.tokens, source, self._vocab)
        return self._laid_out(record, source, number)

    def _record(self, source: str, number: int) -> Record:
        return self._orders[source].records.record(number)

    def _length(self, source: str, number: int) -> int:
        """The tokens of a record's row."""
        raise NotImplementedError

    def _laid_out(self, record: Record, source: str, number: int) -> Row:
        """A record as the model reads it."""
        raise NotImplementedError


class ReferencedLoader(OrderedLoader):
    """Yields records with what a reference has said of them."""

    @dataclass(kw_only=True, slots=True)
    class Config(OrderedLoader.Config):
        references: Mapping[str, Path]
        """source → reference.npy; empty for losses without a reference."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._references = {
            source: read_reference(path, config.orders[source].records.count, source)
            for source, path in config.references.items()
        }

    def _referenced(self, items: Sequence[Item]) -> torch.Tensor:
        """The reference's log-probabilities of some records: float32."""
        found = [self._reference(*item) for item in items]
        return torch.from_numpy(np.stack(found).astype(np.float32))

    def _reference(self, source: str, number: int) -> np.ndarray:
        """The reference's log-probabilities of the answers of a record that the loss needs."""
        raise NotImplementedError
