"""The losses of reward models.

Names carry shapes: N scores, P ordered pairs, R records, K responses of a record.
"""
# ruff: noqa: N803, N806 (the names of the shapes)

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from ....compiler.plan.plan import Reward
from ..objectives import RecordLoss


class RewardLoss(RecordLoss):
    """A loss of the scores that a model gives to the responses of a record.

    - bradley_terry: −log σ(Δ) of every ordered pair, with Δ the better response's score minus that
      of the worse (Bradley, Terry: Rank analysis of incomplete block designs, 1952; Ouyang et al.,
      arXiv:2203.02155, §3.5). With a margin m that is subtracted, −log σ(Δ − m) (Touvron et al.:
      Llama 2, arXiv:2307.09288, eq. 2); with one that scales, −m log σ(Δ) (Wang et al.:
      HelpSteer2-Preference, arXiv:2410.01257, §3.2). `center` adds its product with the square of
      the sum of both scores (Eisenstein et al., arXiv:2312.09244, whose form TRL has).
    - plackett_luce: −Σ log (exp r_i / Σ_{j ≥ i} exp r_j) over all places i of a record's ranking
      but the last (Plackett: The analysis of permutations, 1975; Xia et al.: Listwise approach to
      learning to rank, 2008). Of two responses it is that of Bradley and Terry.

    The loss is the mean over pairs, or over records. Reported: `accuracy`, the share of ordered
    pairs in which the better response's score is higher, and `margin`, the mean of Δ; by records,
    of each record's pairs, and of its best response against its worst.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Reward

    names = ("accuracy", "margin")

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: scores, shape (N,), of each record's responses, the best first.
            rows: what `pairs` or `places` have made.
        """
        losses, right, margin = reward_figures(self._objective, pred, rows)
        self._count(right, margin, tokens=rows["tokens"])
        return losses.sum()


def pairs(responses: list[int]) -> dict[str, torch.Tensor]:
    """`better` and `worse`, int64, shape (P,): which scores form ordered pairs.

    Args:
        responses: how many each record has, the best first.
    """
    ends = np.cumsum(responses).tolist()
    numbers = [range(end - count, end) for end, count in zip(ends, responses, strict=True)]
    found = [pair for of in numbers for pair in combinations(of, 2)]
    better, worse = torch.tensor(found).unbind(1)
    return {"better": better, "worse": worse}


def places(responses: list[int]) -> dict[str, torch.Tensor]:
    """`places_of`, int64, shape (R, K): the number of each response's score, −1 where a record has
    fewer responses than others."""
    ends = np.cumsum(responses).tolist()
    table = torch.full((len(responses), max(responses)), -1)
    for row, end, count in zip(table, ends, responses, strict=True):
        row[:count] = torch.arange(end - count, end)
    return {"places_of": table}


def compared(objective: Reward, responses: list[int]) -> tuple[dict[str, torch.Tensor], int]:
    """What the loss needs to know of the records, and how many things it is a mean over."""
    if objective.objective == "plackett_luce":
        return places(responses), len(responses)
    found = pairs(responses)
    return found, len(found["better"])


def reward_figures(
    objective: Reward, scores_N: torch.Tensor, rows: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of each pair or record, how far it is ordered right, and its margin.

    Args:
        rows: of `compared`, with `margins`, float32, shape (P,), if the objective needs them.
    """
    if objective.objective == "plackett_luce":
        return _of_rankings(scores_N, rows["places_of"])
    better, worse = scores_N[rows["better"]], scores_N[rows["worse"]]
    margin_P = better - worse
    match objective.margin:
        case "subtract":
            losses = -F.logsigmoid(margin_P - rows["margins"])
        case "scale":
            losses = -rows["margins"] * F.logsigmoid(margin_P)
        case _:
            losses = -F.logsigmoid(margin_P)
    if objective.center:
        losses = losses + objective.center * (better + worse).square()
    return losses, margin_P > 0, margin_P


def _of_rankings(
    scores_N: torch.Tensor, places_RK: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of each record, the share of its pairs in order, and the margin of its ends."""
    there, count = places_RK >= 0, (places_RK >= 0).sum(1)
    scores = scores_N[places_RK.clamp(min=0)]
    size = scores.shape[1]
    after = torch.ones(size, size, dtype=torch.bool, device=scores.device).triu()
    left_RKK = (after[None] & there[:, None, :]) | torch.eye(size, dtype=torch.bool).to(after)[None]
    rest = scores[:, None, :].masked_fill(~left_RKK, -torch.inf).logsumexp(2)
    losses = torch.where(there, rest - scores, 0).sum(1)
    ordered = after.triu(1)[None] & there[:, :, None] & there[:, None, :]
    right = (scores[:, :, None] > scores[:, None, :]) & ordered
    last = scores.gather(1, (count - 1)[:, None])[:, 0]
    return losses, right.sum((1, 2)) / ordered.sum((1, 2)), scores[:, 0] - last
