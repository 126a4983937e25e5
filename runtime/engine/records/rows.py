"""Rows of dialogs and preferences: what the model reads, and what it is asked about it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ....compiler.costs.reading import MULTIPLE
from ....compiler.plan.plan import Resources
from ...data.dialogs.encode import CONTENT
from ...data.order.packing import Mask, counted, learned
from ...data.records.shards import Record
from ...errors import DataError

Layout = Literal["joint", "pairs"]


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


def dialog_row(record: Record, *, every_token: bool) -> Row:
    """A dialog; the tokens that training on it learns are predicted."""
    taught = np.flatnonzero(learned(record.parts, every_token=every_token)[1:])
    tokens = record.tokens.astype(np.int64)
    return plain(tokens[:-1], taught, tokens[1:][taught])


def window(tokens: np.ndarray) -> Row:
    """A row in which every token but the first is predicted.

    Args:
        tokens: int64, shape (n + 1,).
    """
    return plain(tokens[:-1], np.arange(len(tokens) - 1), tokens[1:])


def scored(tokens: np.ndarray, ends: Sequence[int] = (-1,)) -> Row:
    """A row whose last token has a score, or several of its tokens.

    Args:
        tokens: int64, shape (n,).
        ends: the places of these tokens.
    """
    count, nothing = len(ends), [np.zeros(0, np.int64)] * len(ends)
    row = plain(tokens, *nothing[:1], *nothing[:1])
    return replace(
        row,
        places=nothing,
        targets=nothing,
        parts=[row.parts[0]] * count,
        ends=[end % len(tokens) for end in ends],
        responses=[count],
    )


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


def ask_ends(rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
    """Where each response ends, to get its score: `places`, int64, shape (N,); `counts`, int64, a 1
    for each response."""
    places = [i * width + end for i, row in enumerate(rows) for end in row.ends]
    return {"places": torch.tensor(places), "counts": torch.ones(len(places), dtype=torch.int64)}


def ask_steps(rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
    """The same, as the values of one response for each row: `counts`, int64, how many it has."""
    asked = ask_ends(rows, width)
    return {**asked, "counts": torch.tensor([len(row.ends) for row in rows])}


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
