"""What jobs need whose models only read: memory and time, where the GPU is known."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Literal

from ...spec.schema import recipe as r
from ..costs.generation import Draws
from ..costs.hardware import gpu
from ..costs.reading import Reader, Rows, reading
from ..plan.measures import HeldOut, LossMeasure

Split = Literal["train", "heldout"]
"""Which part of a data set: what is trained on, or what is held out."""


def with_reading(
    content: dict[str, Any], rows: Sequence[Rows | None], *, scores: bool = False
) -> dict[str, Any]:
    """The content of a job that reads, and its `reading`.

    Args:
        content: `model`, `seq_len`, `resources`, `torchtitan` and more.
        rows: what it reads of each source; None: the spec does not say how much that is.
        scores: whether its model gives scores.
    """
    known = gpu(content["resources"].device)
    if known is None:
        return content
    names = ("model", "seq_len", "resources", "torchtitan")
    of = Reader.of(*(content[name] for name in names), scores=scores)
    every = [each for each in rows if each is not None]
    found = reading(of, known, every if len(every) == len(rows) else None)
    return {**content, "reading": found}


def held_out(
    measures: Sequence[HeldOut], seq_len: int, datasets: Mapping[str, r.Dataset]
) -> list[Rows | None]:
    """The rows that measures of held-out data take, each as long as it may be.

    Args:
        measures: of losses or of accuracy.
        seq_len: tokens of the longest record.
    """
    found: list[Rows | None] = []
    for measure in measures:
        for name in measure.data:
            if isinstance(measure, LossMeasure):
                found.append(Rows(-(-measure.tokens // measure.seq_len), measure.seq_len))
            else:
                found.append(compared(datasets[name], seq_len, "heldout"))
    return found


def compared(dataset: r.Dataset, seq_len: int, split: Split = "train") -> Rows | None:
    """The rows of all preferences or ratings of a data set, or of those held out, each as long as
    it may be: the prompt of a rating is read with its own answer and with another's."""
    if dataset.kind == "ratings":
        return _rows(None if dataset.ratings is None else 2 * dataset.ratings, seq_len)
    if split == "heldout" and dataset.pairs is not None:
        return _rows(ceil(dataset.pairs * dataset.holdout), seq_len)
    return _rows(dataset.pairs, seq_len)


def documents(dataset: r.Dataset, seq_len: int) -> Rows | None:
    """The windows of all documents of a data set, as if they were one text."""
    return _rows(None if dataset.tokens is None else -(-dataset.tokens // seq_len), seq_len)


def answered(drawn: Draws | None, seq_len: int) -> Rows | None:
    """The rows of drawn answers with their prompts, as far as a judge can read them."""
    return Rows(drawn.number, min(drawn.prompt + drawn.answer, seq_len)) if drawn else None


def _rows(number: int | None, length: int) -> Rows | None:
    return None if number is None else Rows(number, length)
