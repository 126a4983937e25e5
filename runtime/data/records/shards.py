"""Tokenized dialogs and preferences in memory-mapped files.

A folder of record shards has the form of token shards (see `shards`), with a code for every token:
the token id times the number of `parts`, plus the token's part of the dialog (see `encode`).
`records.json` is the summary. Preferences also have, for each split, the lengths of their branches:
`train-branches.npy`, int32, (records, branches), 0 if a record has fewer branches than others.
Ratings also have `train-good.npy`, bool, (records,): whether each answer is good. Solutions, whose
branches are the prompt and the steps, have `train-labels.npy`, bool, (records, branches − 1):
whether each step is right. Preferences with
margins have `train-margins.npy`, float32, (records,).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..dialogs.encode import Rendered
from ..reading.streams import unreadable
from ..tokens.shards import SPLITS, Shards, held_out, write_splits
from ..tokens.split_writer import Batch

SUMMARY = "records.json"
ADVANTAGES = "advantages.npy"
"""Beside rollouts: how much better each answer is than the others to its prompt; float32."""
REWARDS = "rewards.npy"
"""Beside rollouts: the reward of each answer; float32."""
LEARNED = "learned.npy"
"""Beside rollouts that are not all learned from: 1 for each answer that is, else 0; float32."""
TOP, BEGINS = "top.npy", "begins.npy"
"""What a teacher finds likely, and where in it each record begins; see `teaching.teach`."""
LIKELIHOOD = "likelihood.npy"
"""The log-probability of each token of all answers, one after the other; float32."""

BRANCHES = {"dialogs": 0, "preferences": 3, "ratings": 2, "solutions": 2, "rollouts": 2}
"""Form → the fewest branches of a record: a prompt, and answers to it or the steps of one."""
_PARTS = 5
_OLD_PARTS = 4
"""Parts in older data sets, made before EXCLUDED, whose summary does not say."""


@dataclass(frozen=True)
class Record:
    """A dialog, or a prompt with its responses, the best first, or with one answer.

    Attributes:
        tokens: int64, shape (n,).
        parts: uint8, shape (n,): OTHER, CONTENT, TERMINATION, FORMATTING or EXCLUDED.
        branches: () for a dialog; for a preference, the lengths of the prompt and of each response,
            which add up to n; for a solution, those of the prompt and of each step.
        good: of a rated answer, whether it is good; else None.
        margin: by how much the better of two responses is better; None: nobody asks.
        labels: of a solution, whether each step is right; else ().
        rendered: the source of a new record: the dialog, or the prompt and each response; () for a
            record that is read from its file.
    """

    tokens: np.ndarray
    parts: np.ndarray
    branches: tuple[int, ...] = ()
    good: bool | None = None
    margin: float | None = None
    labels: tuple[bool, ...] = ()
    rendered: tuple[Rendered, ...] = field(default=(), compare=False, repr=False)


def write_records(
    records: Iterable[Record],
    folder: Path,
    *,
    form: str,
    vocab: int,
    holdout: Fraction,
    seed: int,
    name: str,
    extra: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Writes records in two splits, assigned by `shards.held_out`.

    Args:
        records: read once, never all in memory.
        folder: created if missing; the caller renames it into place.
        form: "dialogs", "preferences", "ratings", "solutions" or "rollouts".
        vocab: every token is smaller.
        extra: returns further entries of the summary, once all records have been written.

    Returns:
        The contents of `records.json`: the summary of `shards.write_splits`, with `form`, `vocab`
        and the entries of `extra`.

    Raises:
        DataError: there are no records.
        ValueError: a record is empty, or its tokens, parts and branches do not match.
        OSError: writing failed.
    """
    if form not in BRANCHES:
        raise ValueError(f"there is no form `{form}`")
    dtype = np.dtype("<u2" if vocab * _PARTS <= 2**16 else "<u4")
    beside: dict[str, list[Record]] = {split: [] for split in SPLITS}

    def batches() -> Iterator[Batch]:
        for ordinal, record in enumerate(records):
            _check(record, form, vocab)
            split = "heldout" if held_out(ordinal, holdout, seed=seed, name=name) else "train"
            if BRANCHES[form]:
                beside[split].append(replace(record, tokens=_NOTHING, parts=_NOTHING, rendered=()))
            codes = (record.tokens * _PARTS + record.parts).astype(dtype)
            yield Batch(codes, np.array([len(codes)]))

    summary = write_splits(
        batches(),
        folder,
        SUMMARY,
        dtype=dtype,
        holdout=holdout,
        seed=seed,
        name=name,
        extra=lambda: {"form": form, "vocab": vocab, "parts": _PARTS, **(extra() if extra else {})},
        what="records",
    )
    for split in SPLITS if BRANCHES[form] else ():
        _write_beside(folder / split, beside[split], form)
    return summary


def _write_beside(path: Path, kept: list[Record], form: str) -> None:
    """Writes what is kept of the records of a split beside their tokens, into files whose names
    begin with a path."""
    np.save(f"{path}-branches.npy", _table([of.branches for of in kept]))
    if form == "ratings":
        np.save(f"{path}-good.npy", np.array([of.good for of in kept], bool))
    if form == "solutions":
        np.save(f"{path}-labels.npy", _table([of.labels for of in kept]).astype(bool))
    if any(of.margin is not None for of in kept):
        np.save(f"{path}-margins.npy", np.array([of.margin for of in kept], np.float32))


_NOTHING = np.zeros(0, np.int64)


def _table(lengths: list[tuple[int, ...]]) -> np.ndarray:
    """Lengths of branches, or labels, shape (records, most of a record), padded with 0."""
    table = np.zeros((len(lengths), max(map(len, lengths), default=0)), np.int32)
    for row, each in zip(table, lengths, strict=True):
        row[: len(each)] = each
    return table


def _check(record: Record, form: str, vocab: int) -> None:
    count = len(record.tokens)
    if count == 0 or record.parts.shape != (count,) or record.tokens.shape != (count,):
        raise ValueError("a record has a part for each of its tokens, and at least one token")
    if record.tokens.min() < 0 or record.tokens.max() >= vocab or record.parts.max() >= _PARTS:
        raise ValueError("a record has a token or part that does not exist")
    if (form == "ratings") != (record.good is not None):
        raise ValueError("an answer is rated in a data set of ratings, and nowhere else")
    if len(record.labels) != (len(record.branches) - 1 if form == "solutions" else 0):
        raise ValueError("each step has a label in a data set of solutions, and nothing elsewhere")
    if form == "dialogs" and record.branches:
        raise ValueError("a dialog has no branches")
    least = BRANCHES[form]
    if least and (
        len(record.branches) < least or min(record.branches) <= 0 or sum(record.branches) != count
    ):
        raise ValueError("a record has a prompt and the responses that it needs, none empty")


class Records:
    """The records of one split, memory-mapped.

    Args:
        folder: what `write_records` wrote.
        split: `train` or `heldout`; it may have no records.
        scattered: whether records are read in random order, not sequentially.

    Attributes:
        form: "dialogs", "preferences", "ratings", "solutions" or "rollouts".
        count: how many records.
        vocab: every token is smaller.
        margins: by how much the better response of each preference is better: float32, (count,);
            None: it does not say.

    Raises:
        DataError: files are missing, truncated or inconsistent.
    """

    def __init__(self, folder: Path, split: str, *, scattered: bool = False) -> None:
        self.split = split
        self._shards = Shards(folder, split, SUMMARY, scattered=scattered)
        self.count = self._shards.documents
        self._branches: np.ndarray | None = None
        self._good: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self.margins: np.ndarray | None = None
        try:
            self.form: str = self._shards.summary["form"]
            self.vocab: int = self._shards.summary["vocab"]
            self.name: str = self._shards.summary["name"]
            self._parts: int = self._shards.summary.get("parts", _OLD_PARTS)
            if BRANCHES[self.form]:
                path = folder / f"{split}-branches.npy"
                self._branches = np.asarray(np.load(path, mmap_mode="r"))
            if self.form == "ratings":
                self._good = np.load(folder / f"{split}-good.npy")
            if self.form == "solutions":
                self._labels = np.load(folder / f"{split}-labels.npy")
            if (path := folder / f"{split}-margins.npy").is_file():
                self.margins = np.load(path)
        except (FileNotFoundError, ValueError, KeyError, EOFError) as error:
            raise self._shards.damaged(str(error) or type(error).__name__) from error
        except OSError as error:
            raise unreadable(str(folder), error) from error
        if self._branches is not None and (
            self._branches.ndim != 2
            or len(self._branches) != self.count
            or self._branches.dtype != np.int32
        ):
            raise self._shards.damaged(f"{split}-branches.npy does not have {self.count} records")
        if self._good is not None and (
            self._good.shape != (self.count,) or self._good.dtype != np.bool_
        ):
            raise self._shards.damaged(f"{split}-good.npy does not have {self.count} records")
        if self._labels is not None and (
            self._labels.shape != (self.count, max(self.branches.shape[1] - 1, 0))
            or self._labels.dtype != np.bool_
        ):
            raise self._shards.damaged(f"{split}-labels.npy does not have {self.count} records")
        if self.margins is not None and self.margins.shape != (self.count,):
            raise self._shards.damaged(f"{split}-margins.npy does not have {self.count} records")

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64, shape (count,)."""
        return self._shards.lengths

    @property
    def branches(self) -> np.ndarray:
        """Lengths of each preference's prompt and responses: int32, (count, branches), 0 if a
        record has fewer."""
        if self._branches is None:
            raise ValueError("dialogs have no branches")
        return self._branches

    @property
    def good(self) -> np.ndarray:
        """Whether each rated answer is good: bool, (count,)."""
        if self._good is None:
            raise ValueError("only ratings are good or bad")
        return self._good

    @property
    def labels(self) -> np.ndarray:
        """Whether each step of each solution is right: bool, (count, most steps), false where there
        is no step."""
        if self._labels is None:
            raise ValueError("only the steps of solutions have labels")
        return self._labels

    def step_labels(self) -> np.ndarray:
        """The labels of all steps, one after the other: bool, shape (steps,)."""
        return self.labels[self.branches[:, 1:] > 0]

    def record(self, i: int) -> Record:
        """Record `i`.

        Raises:
            IndexError: there is no such record.
            DataError: its branches do not add up to its length.
        """
        codes = self._shards.document(i).astype(np.int64)
        tokens, parts = np.divmod(codes, self._parts)
        branches: tuple[int, ...] = ()
        if self._branches is not None:
            branches = tuple(int(length) for length in self._branches[i] if length)
            if len(branches) < BRANCHES[self.form] or sum(branches) != len(codes):
                raise self._shards.damaged(f"the branches of record {i} do not add up to it")
        good = None if self._good is None else bool(self._good[i])
        steps = () if self._labels is None else self._labels[i, : len(branches) - 1].tolist()
        return Record(tokens, parts.astype(np.uint8), branches, good, labels=tuple(steps))
