"""The order of an epoch's records, and which of them share a row of tokens."""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from ....compiler.plan.plan import TrainJob
from ...disk import write_by
from ...errors import DataError
from ..dialogs.encode import CONTENT, EXCLUDED, TERMINATION
from ..records.shards import Record, Records
from .permutation import Permutation, digest, shuffled
from .stream import IGNORE

Mask = Literal["none", "formatting"]

# A batch that straddles two epochs needs both of them; more are never in use at once.
_EPOCHS_KEPT = 2
# Records of the shuffled order that are packed together: enough that rows are nearly full, few
# enough that a row's records come from about the same place in the order.
_WINDOW = 4096
# Up to this many records, the order is a table; above, a computed permutation.
_TABLE_RECORDS = 2**20


def whole_batches(count: int, batch: int, what: str, of: str) -> int:
    """How many of `count` records or rows fill whole batches.

    Raises:
        DataError: there is not one whole batch.
    """
    if count < batch:
        raise DataError(
            f"{what} has {count} {of}, but a batch needs {batch}: `drop_last` would skip all of "
            "them",
            "lower the stage's `batch`, or remove `drop_last`",
        )
    return count - count % batch


def _batch(job: TrainJob) -> int:
    """An epoch has a multiple of these sequences; the plan ensures that the batch size is fixed."""
    drop_last = getattr(job.objective, "drop_last", False)
    return job.schedule.batch[0].sequences if drop_last else 1


class Shuffled:
    """Records, epoch after epoch, each epoch in its own order.

    The order depends only on (seed, name, epoch) and the number of records.

    Args:
        batch: an epoch has a multiple of this many records: the last ones of its order are dropped.

    Raises:
        DataError: the split has no records, or fewer than a batch.
    """

    def __init__(self, records: Records, *, seed: int, name: str, batch: int = 1) -> None:
        if records.count == 0:
            raise DataError(
                f"the split `{records.split}` of the data set `{name}` has no records",
                "add records to the data set, or change its `holdout`",
            )
        self.records = records
        self._used = whole_batches(records.count, batch, f"the data set `{name}`", "records")
        self._identity = (seed, name)
        self._order = lru_cache(maxsize=_EPOCHS_KEPT)(self._load_order)

    @classmethod
    def of(cls, job: TrainJob, source: str, records: Records) -> "Shuffled":
        """The order in which a job learns a source's records."""
        return cls(records, seed=job.seed, name=source, batch=_batch(job))

    def index(self, ordinal: int) -> int:
        """The number of the record at this place, counted from the beginning of epoch 0."""
        epoch, place = divmod(ordinal, self._used)
        return int(self._order(epoch)(np.array([place]))[0])

    def _load_order(self, epoch: int) -> Callable[[np.ndarray], np.ndarray]:
        if self.records.count > _TABLE_RECORDS:
            return Permutation(self.records.count, digest(*self._identity, epoch))
        return shuffled(self.records.count, *self._identity, epoch).__getitem__


class Packing:
    """Rows of `seq_len` tokens, each with whole records of one epoch.

    Records of the shuffled order are packed best fit, longest first, `_WINDOW` of them at a time.
    The rows of a window are ordered by their first records. Rows depend only on (seed, name,
    epoch), the records' lengths and `seq_len`.

    Args:
        batch: an epoch has a multiple of this many rows: the last ones are dropped.
        cache: a folder for the epochs' rows, shared by all ranks; without it each process computes
            its own.

    Raises:
        DataError: the split has no records, a record has more than `seq_len` tokens, or an epoch
            has fewer rows than a batch.
        OSError: the cache folder cannot be written.
    """

    def __init__(
        self,
        records: Records,
        *,
        seed: int,
        name: str,
        seq_len: int,
        batch: int = 1,
        cache: Path | None = None,
    ) -> None:
        self._records = records
        self._lengths = records.lengths
        self._identity = (seed, name)
        self._seq_len = seq_len
        self._batch = batch
        self._cache = cache
        if records.count == 0:
            raise DataError(
                f"the split `{records.split}` of the data set `{name}` has no dialogs",
                "add dialogs to the data set, or change its `holdout`",
            )
        if (longest := int(self._lengths.max())) > seq_len:
            raise DataError(
                f"dialog {int(self._lengths.argmax())} of the data set `{name}` has {longest} "
                f"tokens, but a row has {seq_len}",
                "raise the stage's `seq_len`, or remove long dialogs from the data set",
            )
        self._digest = sha256(self._lengths.data).hexdigest() if cache else ""
        self._epoch = lru_cache(maxsize=_EPOCHS_KEPT)(self._load_epoch)
        # Rows before each epoch; an epoch's number of rows is known only after packing it.
        self._rows_before = [0]

    @classmethod
    def of(cls, job: TrainJob, source: str, records: Records, cache: Path) -> "Packing":
        """The rows from which a job learns a source's dialogs."""
        identity = {"seed": job.seed, "name": source}
        return cls(records, **identity, seq_len=job.seq_len, batch=_batch(job), cache=cache)

    def rows(self, epoch: int) -> int:
        """How many rows of the epoch are used."""
        what = f"epoch {epoch + 1} of the data set `{self._identity[1]}`"
        return whole_batches(int(self._epoch(epoch)[0]), self._batch, what, "rows of dialogs")

    @property
    def records(self) -> int:
        """How many records there are."""
        return self._records.count

    def row(self, ordinal: int) -> list[int]:
        """The numbers of the records in this row, counting rows from epoch 0."""
        while self._rows_before[-1] <= ordinal:
            epoch = len(self._rows_before) - 1
            self._rows_before.append(self._rows_before[-1] + self.rows(epoch))
        epoch = bisect_right(self._rows_before, ordinal) - 1
        packed = self._epoch(epoch)
        begins, order = packed[1 : packed[0] + 2], packed[packed[0] + 2 :]
        place = ordinal - self._rows_before[epoch]
        return order[begins[place] : begins[place + 1]].tolist()

    def filled(self, ordinal: int) -> int:
        """Tokens of a row's records together."""
        return int(self._lengths[self.row(ordinal)].sum())

    def read(self, ordinal: int) -> list[Record]:
        """The records of a row."""
        return [self._records.record(i) for i in self.row(ordinal)]

    def _load_epoch(self, epoch: int) -> np.ndarray:
        """An epoch in one array: its number of rows, where in the order each row begins and the
        last one ends, and the order."""
        if self._cache is None:
            return self._make_epoch(epoch)
        name = digest(*self._identity, epoch, self._seq_len, self._digest).hex()[:32]
        path = self._cache / f"rows-{name}.npy"
        # A file that is missing, or truncated by a crash of the machine, is rebuilt.
        with suppress(OSError, ValueError, EOFError, IndexError):
            made = np.load(path, mmap_mode="r")
            if len(made) == made[0] + 2 + self._records.count:
                return made
        write_by(path, lambda file: np.save(file, self._make_epoch(epoch)))
        return np.load(path, mmap_mode="r")

    def _make_epoch(self, epoch: int) -> np.ndarray:
        order = shuffled(self._records.count, *self._identity, epoch)
        rows: list[list[int]] = []
        for begin in range(0, len(order), _WINDOW):
            window = order[begin : begin + _WINDOW]
            rows += _best_fit(self._lengths[window].tolist(), self._seq_len, begin)
        begins = list(accumulate(map(len, rows), initial=0))
        places = np.fromiter((place for row in rows for place in row), np.int64, len(order))
        return np.concatenate([np.array([len(rows), *begins], np.int64), order[places]])


def _best_fit(lengths: list[int], capacity: int, first: int) -> list[list[int]]:
    """Packs items into rows: each, longest first, into the fullest row that has room for it.

    Args:
        first: the number of the first item.

    Returns:
        The items of each row, ascending; the rows are ordered by their first items.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[item]
        place = bisect_right(free, (length, -1))
        if place == len(free):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(first + item)
        if left > length:
            insort(free, (left - length, row))
    return sorted(map(sorted, rows))


def learned(parts: np.ndarray, *, every_token: bool) -> np.ndarray:
    """Which tokens of a dialog are labels: bool, shape of `parts`.

    The first one never is, since nothing predicts it.

    Args:
        every_token: whether to learn every token, not only the assistant's content and terminators.
    """
    taught = parts != EXCLUDED if every_token else np.isin(parts, (CONTENT, TERMINATION))
    taught[:1] = False
    return taught


def counted(parts: np.ndarray, mask: Mask) -> np.ndarray:
    """Which tokens of a response count: bool, shape of `parts`.

    All of them, or, if formatting is masked, only content: neither headers nor terminators
    (Llama 3, arXiv:2407.21783, §4.1.4).
    """
    return parts == CONTENT if mask == "formatting" else np.ones(len(parts), bool)


def compared(responses: int, *, ends: bool) -> Sequence[int]:
    """Which of a record's responses a loss compares, the best first.

    Args:
        responses: how many there are.
        ends: whether it compares only the best and the worst.
    """
    return (0, responses - 1) if ends else range(responses)


def step_ends(branches: Sequence[int], *, last: bool) -> Sequence[int]:
    """The places in a solution at which its steps are scored: the last token of each.

    Args:
        branches: the lengths of its prompt and of its steps.
        last: whether only the last step is.
    """
    ends = [end - 1 for end in accumulate(branches)][1:]
    return ends[-1:] if last else ends


def pack_dialogs(
    records: list[Record], seq_len: int, *, every_token: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes one training sequence of dialogs.

    The padding after the last dialog counts as one more document, whose labels are all ignored.

    Args:
        records: dialogs of at most `seq_len` tokens in total.
        every_token: whether to learn every token of a dialog, not only the assistant's content and
            terminators.

    Returns:
        inputs: int64, shape (seq_len,).
        labels: int64, shape (seq_len,): the next token if it is learned, else IGNORE.
        positions: int64, shape (seq_len,): from 0 in every dialog.
    """
    inputs = np.zeros(seq_len, np.int64)
    labels = np.full(seq_len, IGNORE, np.int64)
    positions = np.empty(seq_len, np.int64)
    begin = 0
    for record in records:
        end = begin + len(record.tokens)
        inputs[begin:end] = record.tokens
        positions[begin:end] = np.arange(end - begin)
        taught = learned(record.parts, every_token=every_token)[1:]
        labels[begin : end - 1] = np.where(taught, record.tokens[1:], IGNORE)
        begin = end
    positions[begin:] = np.arange(seq_len - begin)
    return inputs, labels, positions
