"""Token shards with a subset of the documents, selected by scores."""

import json
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ....compiler.as_written import counted
from ...disk import write
from ...errors import DataError
from ..reading.streams import unreadable
from .placed import PlacedWriter, Places
from .shards import SPLITS, SUMMARY, Shards
from .split_writer import Batch, SplitWriter

_PLACES = 2**18
"""Documents whose places are looked up at once."""
_OPERATORS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def filter_shards(
    source: Path,
    folder: Path,
    rules: Sequence[tuple[Path, str, float, Fraction]],
    *,
    name: str,
    seed: int,
    shard_tokens: int = 2**28,
) -> dict[str, Any]:
    """Writes the documents that all rules keep, in their order, as `write_shards` does. If the
    tokens are in files elsewhere, it writes only their places.

    Args:
        source: a folder of token shards.
        rules: (scores, op, value, share): of the documents whose score satisfies the comparison
            with the value, about this share is kept. `scores` is a folder with `train.npy` and
            `heldout.npy`, one score per document. NaN satisfies no comparison, so its document is
            kept.
        seed: with the name, the split, the rule and the document's number, decides which are kept.

    Returns:
        The contents of `shards.json`: the source's, with the new counts, and the documents read
        under `filtered`.

    Raises:
        DataError: scores are missing or do not match the documents, or nothing is left to train on.
        OSError: writing failed.
    """
    splits = {split: Shards(source, split) for split in SPLITS}
    keeps = {
        split: _kept(shards.documents, split, rules, name, seed) for split, shards in splits.items()
    }
    train = keeps["train"]
    if len(train) and not train.any():
        raise DataError(
            f"the filter drops all {counted(len(train), 'documents')} of `{name}`",
            "relax its `keep` and `drop`",
        )
    summary = json.loads((source / SUMMARY).read_text(encoding="utf-8"))
    dtype = np.dtype(summary["dtype"]).newbyteorder("<")
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, shards in splits.items():
        numbers = np.flatnonzero(keeps[split])
        found[split] = _written(shards, numbers, folder, dtype, shard_tokens)
    if not splits["train"].elsewhere:
        summary.pop("files", None)
    summary |= {
        "filtered": {"documents": summary["documents"], "tokens": summary["tokens"]},
        "documents": sum(part["documents"] for part in found.values()),
        "tokens": sum(part["tokens"] for part in found.values()),
        "splits": found,
    }
    write(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary


def _written(
    shards: Shards, numbers: np.ndarray, folder: Path, dtype: np.dtype, shard_tokens: int
) -> dict[str, Any]:
    """Writes documents of a split and returns its part of the summary."""
    if shards.elsewhere:
        with PlacedWriter(folder, shards.split) as placed:
            for first in range(0, len(numbers), _PLACES):
                placed.add(Places(*shards.places(numbers[first : first + _PLACES])))
            return placed.finish()
    with SplitWriter(folder, shards.split, dtype, shard_tokens) as writer:
        for number in numbers:
            document = shards.document(int(number)).astype(dtype, copy=False)
            writer.add(Batch(document, np.array([len(document)])))
        return writer.finish()


def _kept(
    documents: int,
    split: str,
    rules: Sequence[tuple[Path, str, float, Fraction]],
    name: str,
    seed: int,
) -> np.ndarray:
    """Which documents all rules keep: bool, shape (documents,)."""
    keep = np.ones(documents, bool)
    for rule, (folder, op, value, share) in enumerate(rules):
        scores = _scores(folder / f"{split}.npy", documents)
        for number in np.flatnonzero(_OPERATORS[op](scores, value) & keep):
            keep[number] = _drawn(share, [seed, name, split, rule, int(number)])
    return keep


def _drawn(share: Fraction, place: list[Any]) -> bool:
    if share <= 0:
        return False
    digest = sha256(json.dumps(place).encode()).digest()
    return int.from_bytes(digest[:8], "big") * share.denominator < share.numerator * 2**64


def _scores(path: Path, documents: int) -> np.ndarray:
    try:
        scores = np.load(path)
    except (ValueError, EOFError) as error:
        raise DataError(f"the scores {path} are damaged: {error}", _REMOVE) from None
    except OSError as error:
        raise unreadable(str(path), error) from None
    if scores.shape != (documents,):
        raise DataError(
            f"the scores {path} have the shape {scores.shape}, but there are {documents} documents",
            _REMOVE,
        )
    return scores


_REMOVE = "remove that folder; the next run scores the documents again"
