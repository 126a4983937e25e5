"""Policy gradients: batches of a model's own answers, and the loss on them.

Names carry shapes: N tokens of answers, R answers.
"""
# ruff: noqa: N806 (the names of the shapes)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....compiler.plan.plan import Grpo
from ...data.records.shards import ADVANTAGES, LEARNED, REWARDS, Records
from ...errors import DataError
from ..loader import check_vocab
from ..objectives import RecordLoss, sums_of
from .loader import Item, RecordLoader
from .rows import Row, ask_tokens, lay_out

PER_TOKEN = ("dapo",)
"""Objectives whose loss is a mean over the tokens of a batch, not over its answers."""


class Rollouts:
    """Answers to learn from.

    Args:
        records: prompts with one answer each.
        folder: with each answer's advantage and reward beside them.
        likelihoods: "old" and "reference" → the file with the log-probabilities of the answers'
            tokens, one after the other.
        masked: whether some of the answers are not learned from.

    Attributes:
        advantages, rewards: float32, shape (answers,).
        learned: 1 for each answer that is learned from, else 0: float32, shape (answers,); None
            if all are.
        begins: where each answer's tokens begin: int64, shape (answers,).

    Raises:
        DataError: a file is missing, damaged, or belongs to other answers.
    """

    def __init__(
        self,
        records: Records,
        folder: Path,
        likelihoods: Mapping[str, Path],
        *,
        masked: bool = False,
    ) -> None:
        sizes = records.branches[:, 1].astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        self.records = records
        self.advantages = _values(folder / ADVANTAGES, records.count)
        self.rewards = _values(folder / REWARDS, records.count)
        self.learned = _values(folder / LEARNED, records.count) if masked else None
        self.likelihoods = {name: _values(p, int(ends[-1])) for name, p in likelihoods.items()}
        self.begins = ends[:-1]

    def likelihood(self, name: str, number: int) -> np.ndarray:
        """The log-probabilities of an answer's tokens: float32, shape (its tokens,)."""
        begin = int(self.begins[number])
        return self.likelihoods[name][begin : begin + int(self.records.branches[number, 1])]


def _values(path: Path, count: int) -> np.ndarray:
    help = "remove the artifact that contains it; the next run rebuilds it"
    try:
        values = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}", help) from error
    if values.shape != (count,) or values.dtype != np.float32:
        raise DataError(f"{path} does not match the answers that it belongs to", help)
    return np.asarray(values)


class RolloutLoader(RecordLoader):
    """Yields answers with their prompts, in the order of the rollouts, for `PolicyLoss`."""

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoader.Config):
        objective: Grpo
        rollouts: Mapping[str, Rollouts]

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._objective = config.objective
        self._rollouts = config.rollouts
        self._per_token = config.objective.objective in PER_TOKEN

    def _find(self, source: str, ordinal: int) -> tuple[int, int]:
        return ordinal, int(self._rollouts[source].records.branches[ordinal].sum())

    def _row(self, source: str, number: int) -> Row:
        record = self._rollouts[source].records.record(number)
        check_vocab(record.tokens, source, self._vocab)
        return lay_out(record, [0], "joint")

    def _ask(
        self,
        items: Sequence[Item],
        rows: Sequence[Row],
        batch: Mapping[str, torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], int]:
        asked = ask_tokens(rows, batch["input"].shape[1], "none")
        of = [(self._rollouts[source], number) for source, number in items]
        asked["advantages"] = torch.tensor([each.advantages[number] for each, number in of])
        asked["rewards"] = torch.tensor([each.rewards[number] for each, number in of])
        for name in of[0][0].likelihoods:
            pieces = [each.likelihood(name, number) for each, number in of]
            asked[name] = torch.from_numpy(np.concatenate(pieces))
        counted = asked["counts"] if self._per_token else torch.ones(len(items))
        if self._objective.mask_truncated:
            known = [each.learned[number] for each, number in of if each.learned is not None]
            asked["learned"] = torch.tensor(known)
            counted = counted * asked["learned"]
        return asked, int(counted.sum())


class PolicyLoss(RecordLoss):
    """A clipped policy gradient on answers, with a penalty for leaving the reference.

    With ρ the ratio of a token's probability to the one under the policy that wrote the answer, A
    the answer's advantage, and c the clip to [1 − low, 1 + high], a token's loss is

        −min(ρ A, c(ρ) A) + kl · (exp(d) − d − 1),   d = log π_reference − log π

    (Schulman et al., arXiv:1707.06347, eq. 7; the penalty is Schulman: Approximating KL divergence,
    2020, k3, as Shao et al. have it, arXiv:2402.03300, eq. 4). The objectives differ in the means:

    - grpo: over the tokens of each answer, then over answers (arXiv:2402.03300, eq. 3).
    - dapo: over all tokens of the batch (Yu et al., arXiv:2503.14476, eq. 8).
    - dr_grpo: the sum over an answer's tokens divided by the most tokens of an answer, then the
      mean over answers (Liu et al., arXiv:2503.20783, §3.2).
    - gspo: ρ is the geometric mean of the ratios of an answer's tokens, one for all of them (Zheng
      et al., arXiv:2507.18071, eq. 5 and 7).
    - rloo: ρ is their product: an answer is one action (Ahmadian et al., arXiv:2402.14740, §3.2);
      its penalty is the sum over the answer's tokens.

    Reported, as means over answers: `reward`, `policy_loss` (the loss without the penalty),
    `divergence` (the penalty without kl), `clipped` (the share of tokens whose gradient the clip
    removes) and `ratio`, the mean of ρ.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Grpo

    names = ("reward", "policy_loss", "divergence", "clipped", "ratio")

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: cross-entropies of answers' tokens, shape (N,).
            rows: `counts`, int64, shape (R,): tokens of each answer; `advantages` and `rewards`,
                float32, shape (R,); `old`, float32, shape (N,): log-probabilities under the policy
                that wrote the answers, absent if it is this one; `reference`, the same under the
                reference, absent without a penalty; `learned`, float32, shape (R,): 0 for answers
                that count in no mean, else 1; absent if all count.
        """
        counts = rows["counts"]
        log_ratio_N = -pred - rows.get("old", -pred.detach())
        advantages_N = _of_tokens(rows["advantages"], counts, pred)
        ratio_N = self._ratios(log_ratio_N, counts)
        low, high = self._objective.clip_ratio
        plain = ratio_N * advantages_N
        kept = ratio_N.clamp(1 - low, 1 + high) * advantages_N
        losses_N = -torch.minimum(plain, kept)
        if "reference" in rows:
            d = rows["reference"] + pred
            divergence_N = d.exp() - d - 1
        else:
            divergence_N = torch.zeros_like(losses_N)
        policy = self._of_answers(losses_N, counts, whole=self._objective.objective == "rloo")
        divergence = self._of_answers(divergence_N, counts)
        if "learned" in rows:
            policy, divergence = policy * rows["learned"], divergence * rows["learned"]
        clipped = sums_of((kept < plain).float(), counts) / counts
        ratio = sums_of(ratio_N.detach(), counts) / counts
        self._count(rows["rewards"], policy, divergence, clipped, ratio, tokens=rows["tokens"])
        return (policy + self._objective.kl * divergence).sum()

    def _ratios(self, log_ratio: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """ρ of each token."""
        if self._objective.objective not in ("gspo", "rloo"):
            return log_ratio.exp()
        whole = sums_of(log_ratio, counts)
        if self._objective.objective == "gspo":
            whole = whole / counts
        return _of_tokens(whole.exp(), counts, log_ratio)

    def _of_answers(
        self, values: torch.Tensor, counts: torch.Tensor, *, whole: bool = False
    ) -> torch.Tensor:
        """What each answer adds to the loss, before it is divided by their number: shape (R,).

        Args:
            whole: whether the values of an answer's tokens are all the answer's one.
        """
        sums, objective = sums_of(values, counts), self._objective.objective
        if objective in ("grpo", "gspo") or whole:
            return sums / counts
        return sums / self._objective.max_tokens if objective == "dr_grpo" else sums


def _of_tokens(values: torch.Tensor, counts: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Each answer's value at each of its tokens: shape (N,). A GPU that is not told how many those
    are in all makes the CPU wait for their number."""
    return values.repeat_interleave(counts, output_size=len(tokens))
