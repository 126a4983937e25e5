"""Records with more tokens than a row: refused, dropped or truncated, and counted."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..dialogs.encode import CONTENT
from ..records.shards import SUMMARY, Record
from .packing import learned

PROMPTS = "prompts.json"
"""The summary of a data set of prompts, next to `prompts.jsonl`."""


class TooLong(DataError):
    """A record has more tokens than its readers take, and no policy handles it.

    The help says what to write to avoid such records.
    """

    def __init__(self, what: str, length: int, limit: int, *, cut: bool = True) -> None:
        more = length - limit
        ways = "`long = drop` or `long = truncate`" if cut else "`long = drop`"
        raised = (
            f"raise `seq_len` of the stages that read it to {length:,} or more"
            if cut
            else "sample from a model with a longer context"
        )
        super().__init__(
            f"{what} takes {length:,} tokens, {more:,} more than the {limit:,} allowed",
            f"write {ways} in the dataset, which applies to all records that are too long and "
            f"counts them, or {raised}",
        )


@dataclass
class Counts:
    """Counts of the records that were too long.

    Attributes:
        limit: the most tokens of a record.
        dropped: records left out, including those that truncation leaves with nothing to learn.
        truncated: records cut to their beginning.
    """

    limit: int
    dropped: int = 0
    truncated: int = 0


class Long:
    """Makes records fit the rows of the stages that read them.

    Args:
        limit: the most tokens of a record; None for any number. The prompt and all responses of a
            preference count together.
        policy: "refuse", "drop" or "truncate".
        every_token: whether every token of a dialog is learned, not only the assistant's.

    Attributes:
        counts: None if records that are too long are refused.
    """

    def __init__(self, limit: int | None, policy: str, *, every_token: bool = False) -> None:
        self._limit = limit
        self._policy = policy
        self._every_token = every_token
        self.counts = None if limit is None or policy == "refuse" else Counts(limit)

    def fits(self, length: int, what: str, *, cut: bool = True) -> bool:
        """Whether a text of this many tokens is kept whole; a dropped one is counted.

        Args:
            what: what the message calls it.
            cut: whether it could be truncated.

        Raises: TooLong: it is too long and refused.
        """
        if self._limit is None or length <= self._limit:
            return True
        if self.counts is None:
            raise TooLong(what, length, self._limit, cut=cut)
        if self._policy == "drop":
            self.counts.dropped += 1
        return False

    def fit(self, record: Record) -> Record | None:
        """The record, whole or truncated; None if it is dropped.

        Raises: TooLong: it is too long and refused.
        """
        what = "the prompt with all responses" if record.branches else "the dialog"
        if record.labels:
            what = "the prompt with all steps"
        if self.fits(len(record.tokens), what):
            return record
        assert self._limit is not None
        assert self.counts
        if self._policy == "drop":
            return None
        cut = _shortened(record, self._limit, every_token=self._every_token)
        self.counts.truncated += cut is not None
        self.counts.dropped += cut is None
        return cut

    def summary(self) -> dict[str, Any]:
        """`{"long": counts}`; {} if there is no limit or too long records are refused."""
        return {} if self.counts is None else {"long": asdict(self.counts)}


def teaches(record: Record, *, every_token: bool = False) -> bool:
    """Whether a record teaches anything: a dialog has a label, every response has content."""
    if record.branches:
        ends = np.cumsum(record.branches)
        pairs = itertools.pairwise(ends)
        return all((record.parts[begin:end] == CONTENT).any() for begin, end in pairs)
    return bool(learned(record.parts, every_token=every_token).any())


def equal_responses(record: Record) -> tuple[int, int] | None:
    """The numbers of two responses of equal tokens, the better one first."""
    ends = np.cumsum(record.branches)
    first: dict[bytes, int] = {}
    for number, (begin, end) in enumerate(itertools.pairwise(ends)):
        same = first.setdefault(record.tokens[begin:end].tobytes(), number)
        if same < number:
            return same, number
    return None


def _shortened(record: Record, limit: int, *, every_token: bool) -> Record | None:
    """The beginning of a record: the first tokens of a dialog; the prompt of a preference and as
    many first tokens of every response as fit; the prompt of a solution and its first steps.

    None if that teaches nothing: no label is left, or two responses are equal.
    """
    if record.labels:
        return _first_steps(record, limit)
    kept = np.arange(len(record.tokens)) < limit
    branches = ()
    if record.branches:
        prompt, *responses = record.branches
        most = _most(responses, limit - prompt)
        if most < 1:
            return None
        branches = (prompt, *(min(length, most) for length in responses))
        begins = np.cumsum((0, *record.branches[:-1]))
        places = np.arange(len(record.tokens)) - np.repeat(begins, record.branches)
        kept = places < np.repeat(branches, record.branches)
    lengths = branches or (limit,)
    rendered = tuple(each.cut(0, n) for each, n in zip(record.rendered, lengths, strict=False))
    cut = replace(
        record,
        tokens=record.tokens[kept],
        parts=record.parts[kept],
        branches=branches,
        rendered=rendered,
    )
    same = branches and equal_responses(cut)
    return cut if teaches(cut, every_token=every_token) and not same else None


def _first_steps(record: Record, limit: int) -> Record | None:
    """The prompt of a solution and as many of its steps as fit whole; None if none does."""
    count = int((np.cumsum(record.branches) <= limit).sum())
    if count < 2:
        return None
    size = sum(record.branches[:count])
    return replace(
        record,
        tokens=record.tokens[:size],
        parts=record.parts[:size],
        branches=record.branches[:count],
        labels=record.labels[: count - 1],
        rendered=record.rendered[:count],
    )


def _most(lengths: list[int], room: int) -> int:
    """The most tokens per response with which all fit: the largest n for which the sum of
    min(length, n) is at most `room`; 0 or less if nothing fits."""
    rest = sorted(lengths)
    while rest and rest[0] * len(rest) <= room:
        room -= rest.pop(0)
    return room // len(rest) if rest else max(lengths)


def counted(result: Path) -> dict[str, Any]:
    """The counts of a data set besides its records: those of `bad_lines`, `long` and `similar` that
    exist.

    Args:
        result: the folder of a data set's job.
    """
    for name in (SUMMARY, PROMPTS):
        try:
            summary = json.loads((result / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return {key: summary[key] for key in ("bad_lines", "long", "similar") if key in summary}
    return {}


def left_out(counts: Mapping[str, Any]) -> bool:
    """Whether a record was left out or truncated, according to the counts of `counted`."""
    long, similar = counts.get("long", {}), counts.get("similar", {})
    found = (counts.get("bad_lines"), long.get("dropped"), long.get("truncated"))
    return any(found) or bool(similar.get("responses"))
