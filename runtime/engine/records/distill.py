"""Distillation: batches of dialogs with a teacher's probabilities, and a student's loss on them.

Names carry shapes: N places at which a token is learned, K of the teacher's likeliest tokens.
"""
# ruff: noqa: N803 (the names of the shapes)

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....compiler.plan.plan import Distill
from ...data.order.stream import IGNORE
from ...data.records.shards import BEGINS, TOP
from ...errors import DataError
from ..loader import Batch, check_vocab
from ..objectives import RecordLoss
from .dialogs import CountedDialogs, DialogLoader
from .loader import Item
from .rows import Row, ask_tokens, collate, dialog_row, join


class Taught:
    """What a teacher has said of a source.

    Args:
        folder: the result of a teacher's job.
        count: records of the source.

    Raises: DataError: the files are missing, damaged, or belong to other data.
    """

    def __init__(self, folder: Path, count: int, top_k: int) -> None:
        help = "remove the artifact that contains it; the next run rebuilds it"
        try:
            self._begins = np.load(folder / BEGINS)
            self._top = np.load(folder / TOP, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder} cannot be read: {error}", help) from error
        if self._begins.shape != (count + 1,) or self._top.shape != (self._begins[-1], 2 * top_k):
            raise DataError(f"{folder} does not match the dialogs that it belongs to", help)

    def of(self, number: int) -> np.ndarray:
        """Of a record: log-probabilities and ids, float32, shape (its learned tokens, 2 K)."""
        return self._top[self._begins[number] : self._begins[number + 1]]


class DistillLoader(DialogLoader):
    """Yields packed rows of dialogs with a teacher's probabilities, for `DistillLoss`."""

    @dataclass(kw_only=True, slots=True)
    class Config(DialogLoader.Config):
        taught: Mapping[str, Taught]

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._taught = config.taught

    def _micro_batches(self, step: int) -> Iterator[Batch]:
        for indices, length in self._by_fullness(step):
            yield self._batch(step, indices, length)

    def _batch(self, step: int, indices: Sequence[int], length: int) -> Batch:
        rows, items = [], list[Item]()
        for index in indices:
            source, position = self._locate(step, index)
            ordinal = position // self.timeline.seq_len
            packing = self._packings[source]
            found = packing.read(ordinal)
            for record in found:
                check_vocab(record.tokens, source, self._vocab)
            rows.append(join([dialog_row(r, every_token=self._every_token) for r in found]))
            items += [(source, number) for number in packing.row(ordinal)]
        assert self._multiple
        batch = collate(rows, self._multiple, length)
        asked, count = ask_teacher(self._taught, items, rows, batch["input"].shape[1])
        batch |= asked
        batch["tokens"] = torch.tensor(sum(len(row.tokens) for row in rows))
        labels = torch.full_like(batch["input"], IGNORE)
        labels.view(-1)[:count] = 0
        return batch, labels


class CountedDistill(CountedDialogs):
    """Yields as many dialogs as a batch counts, with a teacher's probabilities."""

    @dataclass(kw_only=True, slots=True)
    class Config(CountedDialogs.Config):
        taught: Mapping[str, Taught]

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._taught = config.taught

    def _ask(
        self, items: Sequence[Item], rows: Sequence[Row], batch: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], int]:
        return ask_teacher(self._taught, items, rows, batch["input"].shape[1])


def ask_teacher(
    taught: Mapping[str, Taught], items: Sequence[Item], rows: Sequence[Row], width: int
) -> tuple[dict[str, torch.Tensor], int]:
    """What the loss gets for some dialogs, and at how many places it compares.

    Args:
        items: the dialogs in the rows, in their order.
        width: of the padded rows.
    """
    top = [taught[source].of(number) for source, number in items]
    logs, ids = np.split(np.concatenate(top), 2, axis=1)
    return {
        "places": ask_tokens(rows, width, "none")["places"],
        "teacher": torch.from_numpy(logs),
        "targets": torch.from_numpy(ids.astype(np.int64)),
    }, len(logs)


class DistillLoss(RecordLoss):
    """How far a student's next-token probabilities q are from a teacher's, p.

    Of each place the teacher's K likeliest tokens are known. All others count as one more token,
    whose probability is what these leave, so that p and q are distributions over K + 1; with K the
    whole vocabulary, or as it approaches it, this is the divergence of the models.

    - forward_kl: Σ p log (p / q) (Hinton et al., arXiv:1503.02531; Kim, Rush, arXiv:1606.07947).
    - reverse_kl: Σ q log (q / p) (Gu et al.: MiniLLM, arXiv:2306.08543), on the data's tokens.
    - jsd: (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2 (Agarwal et al.: GKD, arXiv:2306.13649,
      eq. 1, with β = 1/2).

    The loss is the mean over places. Reported: `kept`, the mean probability that the teacher gives
    to its K likeliest tokens, and `agreement`, the share of places at which the student finds the
    same of them the likeliest.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Distill

    names = ("kept", "agreement")

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._divergence = DIVERGENCES[config.objective.divergence]

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: the student's log-probabilities of the teacher's tokens, shape (N, K).
            rows: `teacher`, float32, shape (N, K): the teacher's own, the likeliest first.
        """
        p, q = with_rest(rows["teacher"]), with_rest(pred)
        self._count(1 - p[:, -1].exp(), pred.argmax(1) == 0, tokens=rows["tokens"].to(pred.device))
        return self._divergence(p, q).sum()


def with_rest(logs_NK: torch.Tensor) -> torch.Tensor:
    """The log-probabilities, and that of all other tokens together: shape (N, K + 1)."""
    known = logs_NK.logsumexp(1, keepdim=True).clamp(max=-torch.finfo(logs_NK.dtype).eps)
    return torch.cat([logs_NK, torch.log(-torch.expm1(known))], 1)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Σ p log (p / q) of each row, of log-probabilities."""
    return (p.exp() * (p - q)).sum(1)


def _jsd(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    m = torch.logaddexp(p, q) - np.log(2)
    return (_kl(p, m) + _kl(q, m)) / 2


DIVERGENCES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "forward_kl": _kl,
    "reverse_kl": lambda p, q: _kl(q, p),
    "jsd": _jsd,
}
"""Name → the divergence of rows of log-probabilities p and q, shape (N, K + 1) → (N,)."""
