"""Rows of dialogs and preferences: what the model reads, and what it is asked about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...compiler.costs.reading import MULTIPLE
from ...compiler.plan.plan import Dpo, Resources, Reward
from ..data.balance import micro_batches as balanced_rows
from ..data.encode import CONTENT
from ..data.packing import Mask, Packing, Shuffled, compared, counted, pack_dialogs
from ..data.record_shards import Record
from ..data.stream import IGNORE
from ..errors import DataError
from .loader import AHEAD, Batch, Loader, check_targets, check_vocab

Layout = Literal["joint", "pairs"]
_Item = tuple[str, int]
"""A source, and the number of one of its records."""
_Packed = tuple[int, list[list[_Item]]]


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


@dataclass(frozen=True)
class Row:
    """A preference as the model reads it, or several, one after the other.

    Attributes:
        tokens: int64, shape (n,).
        positions: int64, shape (n,).
        segments: int64, shape (n,): the number of each token's segment.
        prefixes: int64, shape (n,): the segment that a token sees besides its own, or its own.
        places: for each response, where the model predicts its tokens: int64, shape (its length,).
        targets: for each response, its tokens: int64, shape (its length,).
        parts: for each response, the parts of its tokens: uint8, shape (its length,).
        ends: for each response, the place of its last token.
        responses: how many each preference has.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    prefixes: np.ndarray
    places: list[np.ndarray]
    targets: list[np.ndarray]
    parts: list[np.ndarray]
    ends: list[int]
    responses: list[int]


def plain(
    tokens: np.ndarray, places: np.ndarray, targets: np.ndarray, parts: np.ndarray | None = None
) -> Row:
    """A row of one segment, with one response.

    Args:
        tokens: int64, shape (n,).
        places, targets: int64, shape (m,): where which tokens are predicted.
        parts: uint8, shape (m,); by default all are content.
    """
    count = len(tokens)
    ones = np.ones(count, np.int64)
    if parts is None:
        parts = np.full(len(targets), CONTENT, np.uint8)
    return Row(tokens, np.arange(count), ones, ones, [places], [targets], [parts], [count - 1], [1])


def join(rows: Sequence[Row]) -> Row:
    """One row of several; what is in one of them does not see what is in another."""
    if len(rows) == 1:
        return rows[0]
    begins = np.cumsum([0, *(len(row.tokens) for row in rows[:-1])]).tolist()
    firsts = np.cumsum([0, *(row.segments.max() + 1 for row in rows[:-1])]).tolist()

    def each(name: str) -> list[Any]:
        return [item for row in rows for item in getattr(row, name)]

    return Row(
        np.concatenate([row.tokens for row in rows]),
        np.concatenate([row.positions for row in rows]),
        np.concatenate([row.segments + n for n, row in zip(firsts, rows, strict=True)]),
        np.concatenate([row.prefixes + n for n, row in zip(firsts, rows, strict=True)]),
        [place + at for at, row in zip(begins, rows, strict=True) for place in row.places],
        each("targets"),
        each("parts"),
        [end + at for at, row in zip(begins, rows, strict=True) for end in row.ends],
        each("responses"),
    )


def lay_out(record: Record, responses: Sequence[int], layout: Layout) -> Row:
    """Makes a row of a preference's prompt and some of its responses.

    In the layout `joint` the prompt occurs once, and the positions of each response continue it; in
    `pairs` it comes before every response.
    """
    ends = np.cumsum(record.branches)
    prompt = record.branches[0]
    shared = layout == "joint"
    tokens = [record.tokens[:prompt]] if shared else []
    positions = [np.arange(prompt)] if shared else []
    segments = [np.zeros(prompt, np.int64)] if shared else []
    prefixes = [*segments]
    places, targets, parts, last = [], [], [], []
    begin = prompt if shared else 0
    for number, response in enumerate(responses):
        stretch = slice(int(ends[response]), int(ends[response + 1]))
        length = stretch.stop - stretch.start
        if not shared:
            tokens.append(record.tokens[:prompt])
            begin += prompt
        tokens.append(record.tokens[stretch])
        positions.append(np.arange(prompt if shared else 0, prompt + length))
        segments.append(np.full(len(positions[-1]), number + 1, np.int64))
        prefixes.append(np.zeros_like(segments[-1]) if shared else segments[-1])
        places.append(np.arange(begin - 1, begin + length - 1))
        places[-1][0] = prompt - 1 if shared else begin - 1
        targets.append(record.tokens[stretch])
        parts.append(record.parts[stretch])
        begin += length
        last.append(begin - 1)
    return Row(
        np.concatenate(tokens),
        np.concatenate(positions),
        np.concatenate(segments),
        np.concatenate(prefixes),
        places,
        targets,
        parts,
        last,
        [len(last)],
    )


def window(tokens: np.ndarray) -> Row:
    """A row in which every token but the first is predicted.

    Args:
        tokens: int64, shape (n + 1,).
    """
    return plain(tokens[:-1], np.arange(len(tokens) - 1), tokens[1:])


def scored(tokens: np.ndarray) -> Row:
    """A row whose last token has a score.

    Args:
        tokens: int64, shape (n,).
    """
    nothing = np.zeros(0, np.int64)
    return plain(tokens, nothing, nothing)


def row_multiple(resources: Resources) -> int:
    """Rows are padded to a multiple of this: few lengths, which all ranks can share."""
    return (8 if resources.device == "cpu" else MULTIPLE) * resources.tensor


def row_length(branches: Sequence[int], responses: Sequence[int], layout: Layout) -> int:
    """Tokens in a row of `lay_out`."""
    prompts = 1 if layout == "joint" else len(responses)
    return int(prompts * branches[0] + sum(branches[1 + response] for response in responses))


def collate(rows: Sequence[Row], multiple: int, length: int) -> dict[str, torch.Tensor]:
    """The model's input for some rows: `input`, `positions`, `segments` and `prefixes`, int64, each
    of shape (rows, length rounded up to a multiple)."""
    width = -(-length // multiple) * multiple
    batch = {name: np.zeros((len(rows), width), np.int64) for name in ("input", "positions")}
    # Padding is a segment of its own, so that every token sees at least itself.
    for name in ("segments", "prefixes"):
        batch[name] = np.full((len(rows), width), -1, np.int64)
    for i, row in enumerate(rows):
        count = len(row.tokens)
        batch["input"][i, :count] = row.tokens
        batch["positions"][i, :count] = row.positions
        batch["segments"][i, :count] = row.segments
        batch["prefixes"][i, :count] = row.prefixes
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def ask_tokens(rows: Sequence[Row], width: int, mask: Mask) -> dict[str, torch.Tensor]:
    """Which tokens' cross-entropies are needed: `places` and `targets`, int64, shape (N,), response
    by response; and `counts`, int64, how many each response has."""
    places, targets, counts = [], [], []
    for i, row in enumerate(rows):
        for j, parts in enumerate(row.parts):
            chosen = counted(parts, mask)
            places.append(i * width + row.places[j][chosen])
            targets.append(row.targets[j][chosen])
            counts.append(int(chosen.sum()))
    return {
        "places": torch.from_numpy(np.concatenate(places)),
        "targets": torch.from_numpy(np.concatenate(targets)),
        "counts": torch.tensor(counts),
    }


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

    def _batch(self, items: Sequence[Sequence[_Item]], length: int) -> Batch:
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
        self, items: Sequence[_Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        """What the loss gets besides, and how many things it is a mean over.

        Args:
            items: the records of the rows, in their order.
            batch: the rows as the model reads them.
        """
        raise NotImplementedError


class PreferenceLoader(RecordLoader):
    """Yields preferences, for the losses in `objectives`.

    Raises:
        DataError: a record is longer than the sequence length, or a response has no tokens that
            count.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoader.Config):
        objective: Reward | Dpo
        orders: Mapping[str, Shuffled]
        references: Mapping[str, Path]
        """source → reference.npy; empty for losses without a reference."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective
        self._orders = config.orders
        self._references = {
            source: read_reference(path, config.orders[source].records.count, source)
            for source, path in config.references.items()
        }

    def _find(self, source: str, ordinal: int) -> tuple[int, int]:
        number = self._orders[source].index(ordinal)
        branches = self._branches(source, number)
        return number, row_length(branches, self._responses(branches), self._objective.layout)

    def _row(self, source: str, number: int) -> Row:
        record = self._orders[source].records.record(number)
        check_vocab(record.tokens, source, self._vocab)
        row = lay_out(record, self._responses(record.branches), self._objective.layout)
        if isinstance(self._objective, Dpo) and not self._references:
            # Where there is a reference, its job has checked this.
            check_different(row, self._objective.mask, source, number)
        return row

    def _ask(
        self, items: Sequence[_Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        width = batch["input"].shape[1]
        if isinstance(self._objective, Reward):
            asked = _ask_scores(rows, width)
            return asked, len(asked["better"])
        asked = ask_tokens(rows, width, self._objective.mask)
        check_counts(asked["counts"].view(-1, 2), items)
        if self._references:
            references = np.stack([self._reference(*item) for item in items])
            asked["reference"] = torch.from_numpy(references)
        return asked, len(items)

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
        return known[[0, -1]].astype(np.float32)


def ask_ends(rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
    """Where each response ends, to get its score: `places`, int64, shape (N,); `counts`, int64, a 1
    for each response."""
    places = [i * width + end for i, row in enumerate(rows) for end in row.ends]
    return {"places": torch.tensor(places), "counts": torch.ones(len(places), dtype=torch.int64)}


def _ask_scores(rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
    """Where each response ends, and every ordered pair of a preference's responses."""
    places, better, worse = [], [], []
    first = 0
    for i, row in enumerate(rows):
        places += [i * width + end for end in row.ends]
        for count in row.responses:
            for one, other in combinations(range(first, first + count), 2):
                better.append(one)
                worse.append(other)
            first += count
    named = {"places": places, "better": better, "worse": worse}
    return {name: torch.tensor(numbers) for name, numbers in named.items()}


def read_reference(path: Path, count: int, source: str) -> np.ndarray:
    """Reference log-probabilities: float32, shape (count, responses), nan if there is none.

    Raises:
        DataError: the file is missing, damaged or belongs to other data.
    """
    help = "remove the artifact that contains it; the next run rebuilds it"
    try:
        values = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the reference {path} cannot be read: {error}", help) from error
    if values.ndim != 2 or len(values) != count or values.dtype != np.float32:
        raise DataError(
            f"the reference {path} does not match the {count} records of `{source}`", help
        )
    return np.asarray(values)


def check_length(length: int, seq_len: int, source: str, number: int) -> None:
    """
    Raises:
        DataError: a record has more tokens than the stage's sequences.
    """
    if length > seq_len:
        raise DataError(
            f"record {number} of the data set `{source}` has {length} tokens, but the stage's "
            f"sequences have {seq_len}",
            "raise the stage's `seq_len`, or remove long records from the data set",
        )


def check_different(row: Row, mask: Mask, source: str, number: int) -> None:
    """
    Raises:
        DataError: the tokens that count are the same in the best and the worst response, so that
            nothing tells which is better.
    """
    first, last = (
        row.targets[place][counted(row.parts[place], mask)].tolist() for place in (0, -1)
    )
    if first == last:
        raise DataError(
            f"the best and the worst response in record {number} of the data set `{source}` "
            "differ only in tokens that do not count: `mask = formatting` excludes their ends",
            "remove the record, or write `mask = none`",
        )


def check_counts(counts: torch.Tensor, items: Sequence[tuple[str, int]]) -> None:
    """
    Args:
        counts: tokens that count in each response of each record: shape (records, responses).
        items: source and number of each record.

    Raises:
        DataError: a response has no tokens that count.
    """
    empty = (counts == 0).any(1)
    if empty.any():
        source, number = items[int(empty.int().argmax())]
        raise DataError(
            f"a response in record {number} of the data set `{source}` has no content of the "
            "assistant, and `mask = formatting` excludes everything else",
            "remove the record, or write `mask = none`",
        )
