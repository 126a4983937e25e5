"""Rated answers: batches of them, and the loss on them.

Names carry shapes: N tokens of answers, R answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import DeviceMesh

from ....compiler.plan.plan import Kto, ReferenceJob
from ...data.order.packing import counted
from ...data.records.shards import Record, Records
from ..loader import Batch, check_vocab
from ..objectives import Asked, RecordLoss, sums_of
from .loader import Item, ReferencedLoader
from .rows import Row, ask_tokens, check_counts, check_length, lay_out

if TYPE_CHECKING:
    from ..measures.walk import Walk

OWN, MISMATCHED = 0, 1
"""Columns of a reference: of a record's own answer, and of another's to its prompt."""


def mismatched(records: Records, number: int, longest: int) -> Record:
    """A record's prompt with the answer of another record: of the one half a data set further on,
    so that each answer is taken once, and records of the same prompt, which often follow one
    another, are not mixed up.

    Args:
        longest: the most tokens; of a longer one, the answer's end is left out.
    """
    one = records.record(number)
    other = records.record((number + records.count // 2) % records.count)
    prompt, begin = one.branches[0], other.branches[0]
    end = min(len(other.tokens), begin + longest - prompt)
    return Record(
        np.concatenate([one.tokens[:prompt], other.tokens[begin:end]]),
        np.concatenate([one.parts[:prompt], other.parts[begin:end]]),
        (prompt, end - begin),
    )


def rated(records: Records, number: int, longest: int, source: str) -> Record:
    """A record with its own answer.

    Raises: DataError: it has more tokens than `longest`.
    """
    check_length(int(records.branches[number].sum()), longest, source, number)
    return records.record(number)


def both_answers(walk: "Walk", records: Records, job: ReferenceJob) -> np.ndarray:
    """What a model says of each prompt with its own answer, and with another's.

    Returns: as `Walk.over`: float64, shape (records, 2, 2); the last axis is `OWN`, `MISMATCHED`.

    Raises: DataError: a record is too long, or has no tokens that count.
    """

    def own(number: int) -> Sequence[Row]:
        row = laid_out(rated(records, number, job.seq_len, job.source))
        counts = torch.tensor([[int(counted(row.parts[0], job.mask).sum())]])
        check_counts(counts, [(job.source, number)])
        return [row]

    def other(number: int) -> Sequence[Row]:
        return [laid_out(mismatched(records, number, job.seq_len))]

    def laid_out(record: Record) -> Row:
        check_vocab(record.tokens, job.source, job.model.vocab)
        return lay_out(record, [0], "joint")

    found = [
        walk.over(split, records.count, rows, 1)
        for split, rows in (("train", own), ("mismatched", other))
    ]
    return np.concatenate(found, axis=2)


class RatingLoader(ReferencedLoader):
    """Yields rated answers with their prompts, for `KtoLoss`.

    Raises:
        DataError: a record is longer than the sequence length, or an answer has no tokens that
            count.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(ReferencedLoader.Config):
        objective: Kto

    column = OWN
    """Of a reference: what it says of the answers that are read."""

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective
        self._others = None if isinstance(self, _Mismatched) else _Mismatched(config, **keywords)

    def mismatched(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of a step, each prompt with the answer to another."""
        assert self._others
        return self._others.of_step(step)

    def _record(self, source: str, number: int) -> Record:
        return rated(self._orders[source].records, number, self.timeline.seq_len, source)

    def _length(self, source: str, number: int) -> int:
        return len(self._record(source, number).tokens)

    def _laid_out(self, record: Record, source: str, number: int) -> Row:
        return lay_out(record, [0], "joint")

    def _ask(
        self,
        items: Sequence[Item],
        rows: Sequence[Row],
        batch: Mapping[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], int]:
        asked = ask_tokens(rows, batch["input"].shape[1], self._objective.mask)
        check_counts(asked["counts"].view(-1, 1), items)
        asked["reference"] = self._referenced(items)
        good = [bool(self._orders[source].records.good[number]) for source, number in items]
        asked["good"] = torch.tensor(good)
        return asked, len(items)

    def _reference(self, source: str, number: int) -> np.ndarray:
        return self._references[source][number, self.column]


class _Mismatched(RatingLoader):
    """The same prompts with the answers to others."""

    column = MISMATCHED

    def of_step(self, step: int) -> Iterator[Batch]:
        return self._micro_batches(step)

    def _record(self, source: str, number: int) -> Record:
        return mismatched(self._orders[source].records, number, self.timeline.seq_len)

    def _ask(
        self,
        items: Sequence[Item],
        rows: Sequence[Row],
        batch: Mapping[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], int]:
        asked = ask_tokens(rows, batch["input"].shape[1], self._objective.mask)
        # An answer that was cut may have no token that counts, and then no reference.
        asked["reference"] = self._referenced(items).nan_to_num(0.0)
        return asked, len(items)


class KtoLoss(RecordLoss):
    """Kahneman–Tversky optimization (Ethayarajh et al., arXiv:2402.01306, eq. 7 and 8).

    With r = log π − log ρ, the difference of an answer's log-probabilities under the policy and the
    reference, summed over the tokens that count, the loss of an answer is

        w₊ (1 − σ(β (r − z)))  if it is good,    w₋ (1 − σ(β (z − r)))  if it is bad,

    where z = max(0, the mean of r over the batch's prompts with answers to other prompts), an
    estimate of the divergence from the reference, without gradient. It is computed before the
    step's first micro-batch, over the whole global batch, so that it depends neither on ranks nor
    on micro-batches.

    Reported: `accuracy`, the share of good answers with r > z and bad ones with r < z;
    `divergence`, which is z; `desirable_reward` and `undesirable_reward`, the means of βr over good
    and over bad answers, if the batch has any.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Kto

    names = ("accuracy", "divergence", "good", "desirable_reward", "undesirable_reward")

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective
        self._divergence: torch.Tensor | float = 0.0

    def begin(self, trainer: Asked, step: int) -> None:
        loader = trainer.loader
        assert isinstance(loader, RatingLoader)
        found = torch.zeros(2, dtype=torch.float64, device=trainer.device)
        for batch, _ in loader.mismatched(step):
            log = -sums_of(trainer.say(batch), batch["counts"].to(trainer.device))
            ratio = (log - batch["reference"].to(trainer.device)).double()
            found += torch.stack([ratio.sum(), torch.ones_like(ratio).sum()])
        if trainer.batch_mesh is not None:
            dist.all_reduce(found, group=trainer.batch_mesh.get_group())
        # It stays on the GPU, so that the CPU need not wait for it.
        self._divergence = (found[0] / found[1]).clamp(min=0)

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: cross-entropies of answers' tokens, shape (N,).
            rows: `counts`, int64, shape (R,): how many of them belong to each answer; `reference`,
                float32, shape (R,): log-probabilities, summed over the same tokens; `good`, bool,
                shape (R,).
        """
        objective, good = self._objective, rows["good"]
        ratio = -sums_of(pred, rows["counts"]) - rows["reference"]
        gain = torch.where(good, ratio - self._divergence, self._divergence - ratio)
        weight = torch.where(good, objective.desirable_weight, objective.undesirable_weight)
        loss = weight * F.sigmoid(-objective.beta * gain)
        reward = objective.beta * ratio
        self._count(
            gain > 0,
            torch.zeros_like(ratio) + self._divergence,
            good,
            reward * good,
            reward * ~good,
            tokens=rows["tokens"],
        )
        return loss.sum()

    def collect(self, mesh: DeviceMesh | None) -> tuple[dict[str, float], int]:
        found, tokens = super().collect(mesh)
        good = found.pop("good")
        for name, part in (("desirable", good), ("undesirable", 1 - good)):
            reward = found.pop(f"{name}_reward")
            if part:
                found[f"{name}_reward"] = reward / part
        return found, tokens
