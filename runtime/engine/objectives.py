"""Losses: of language models, with additional terms, and of preferences.

Names carry shapes: N places at which the model has an output, P ordered pairs, R records.
"""
# ruff: noqa: N803 (the names of the shapes)

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.components.loss import (
    IGNORE_INDEX,
    BaseLoss,
    ChunkedLossWrapper,
    CrossEntropyLoss,
)
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.tools.utils import get_local_device

from ...compiler.plan.plan import Dpo


class Asked(Protocol):
    """What a loss may ask before a step: the model, about rows of the step.

    Attributes:
        batch_mesh: the ranks that have different data, if there are several.
    """

    loader: Any
    device: torch.device

    @property
    def batch_mesh(self) -> DeviceMesh | None: ...

    def say(self, batch: dict[str, torch.Tensor]) -> torch.Tensor: ...


class Reported:
    """Figures that a loss reports for a step besides itself, summed over its micro-batches."""

    of_sequence: bool = False
    """Whether ranks that have different parts of a sequence have different sums."""
    _added: tuple[torch.Tensor, ...] = ()
    _kept: int = 0

    def begin(self, trainer: Asked, step: int) -> None:
        """What the loss needs of a step before its first micro-batch; all ranks call this
        together."""

    def _add(self, sums: torch.Tensor) -> None:
        self._added = (*self._added, sums)

    def keep_last(self, calls: int) -> None:
        """Drops what was added since the previous call, except by the last `calls` calls of the
        loss.

        Before its first step, a torch pipeline tries out the loss.
        """
        kept, new = self._added[: self._kept], self._added[self._kept :]
        self._added = (*kept, *new[max(len(new) - calls, 0) :])
        self._kept = len(self._added)

    def _collected(self, mesh: DeviceMesh | None, count: int) -> list[float]:
        """The sums over all ranks of a mesh since the last call.

        Args:
            count: how many sums there are: a rank before a pipeline's last has added none.
        """
        if self._added:
            sums = torch.stack(self._added).sum(0)
        else:
            sums = torch.zeros(count, dtype=torch.float64, device=get_local_device())
        self._added, self._kept = (), 0
        if mesh is not None:
            dist.all_reduce(sums, group=mesh.get_group())
        return sums.tolist()

    def collect(self, mesh: DeviceMesh | None) -> tuple[dict[str, float], int | None]:
        """The means over the global batch since the last call, and its tokens without padding if
        they are not those of full rows.

        Args:
            mesh: the ranks that have different data; all of them call this together.
        """
        raise NotImplementedError


def reported(loss: BaseLoss) -> Reported | None:
    """The reporter of a loss: itself, or the loss that it chunks; None for torchtitan's."""
    inner = loss.loss_fn if isinstance(loss, ChunkedLossWrapper) else loss
    return inner if isinstance(inner, Reported) else None


Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, shape (B, L, V), or this tensor rank's share of V; labels, shape (B, L) → the sum over
the labels that are not ignored."""


def _log_partition(logits: torch.Tensor) -> torch.Tensor:
    """log Z of each place, with Z = Σ exp(logit): shape (B, L).

    If tensor ranks share the vocabulary, a rank's part of Z has its share of the gradient.
    """
    log_part = torch.logsumexp(logits.float(), -1)
    mesh = current_spmd_mesh() if spmd_mesh_size("tp") > 1 else None
    if mesh is None:
        return log_part
    group, part = mesh.get_group("tp"), log_part.detach()
    largest = part.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    total = (part - largest).exp()
    dist.all_reduce(total, group=group)
    log_z = largest + total.log()
    return log_z + (part - log_z).exp() * (log_part - part)


def z_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log² Z, which keeps logits from drifting: softmax ignores a common offset.

    Chowdhery et al.: PaLM (arXiv:2204.02311, §5), there with the coefficient 1e-4.
    """
    return torch.where(labels != IGNORE_INDEX, _log_partition(logits).square(), 0).sum()


TERMS: dict[str, Term] = {"z_loss": z_loss}
"""Terms that may be added to the cross-entropy, by the plan's names of their coefficients."""


class LanguageLoss(CrossEntropyLoss, Reported):
    """Cross-entropy, plus further terms times their coefficients.

    Reported: `loss`, the cross-entropy alone, and each term without its coefficient; all are means
    over the global batch's labels.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):
        terms: Mapping[str, float] = field(default_factory=dict)
        """Names in `TERMS` → coefficients."""

    of_sequence = True

    def __init__(self, config: Config, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self._terms = config.terms
        self.plain = False
        """Whether it is the cross-entropy alone, and reports nothing: to measure, not to train."""

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Args:
            pred: logits, shape (B, L, V), or this tensor rank's share of V.
            labels: int64, shape (B, L).
        """
        loss, metrics = super().__call__(pred, labels, global_valid_tokens, **kwargs)
        if self.plain:
            return loss, metrics
        loss, values = self._with_terms(loss, pred, labels, global_valid_tokens)
        self._tell(values)
        return loss, metrics

    def _with_terms(
        self,
        loss: torch.Tensor,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss with its terms, and what is reported: the loss without, and each term."""
        values = [loss]
        for name, coefficient in self._terms.items():
            term = share(TERMS[name](pred, labels), global_valid_tokens)
            values.append(term)
            loss = loss + coefficient * term
        return loss, values

    def _tell(self, values: Sequence[torch.Tensor]) -> None:
        self._add(torch.stack([value.detach().double() for value in values]))

    @property
    def _names(self) -> tuple[str, ...]:
        return ("loss", *self._terms)

    def collect(self, mesh: DeviceMesh | None) -> tuple[dict[str, float], None]:
        names = self._names
        return dict(zip(names, self._collected(mesh, len(names)), strict=True)), None


class RecordLoss(BaseLoss, Reported):
    """A loss over records, which also sums what is reported for a step."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseLoss.Config):
        objective: Any

    names: tuple[str, ...]
    """What is reported; each is a mean over the items of the batch."""

    def __init__(self, config: Config, **_: Any) -> None:
        self._objective = config.objective

    def __call__(
        self,
        pred: torch.Tensor,
        labels: torch.Tensor,
        global_valid_tokens: torch.Tensor | None = None,
        **rows: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The local sum over the number of things of the global batch that the loss is a mean
        over, as torchtitan's losses have it: summed over micro-batches and ranks it is the mean.

        Args:
            pred: what the model says at the places that the loader asks about.
            labels: unused; as many are not ignored as there are things.
            global_valid_tokens: how many that are on all ranks: int64, shape ().
            rows: what the loader's `_ask` has made.
        """
        if global_valid_tokens is not None:  # 0 where no answer of a policy's batch is learned from
            global_valid_tokens = global_valid_tokens.clamp(min=1)
        return share(self._sum(pred, rows), global_valid_tokens), {}

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The sum of the losses of this micro-batch, whose figures it counts."""
        raise NotImplementedError

    def _count(self, *values: torch.Tensor, tokens: torch.Tensor) -> None:
        """Adds each item's values, in the order of `names`."""
        items = torch.full_like(values[0], 1)
        columns = torch.stack([each.detach().double() for each in (*values, items)])
        self._add(torch.cat([columns.sum(1), tokens.double().reshape(1)]))

    def collect(self, mesh: DeviceMesh | None) -> tuple[dict[str, float], int]:
        *values, items, tokens = self._collected(mesh, len(self.names) + 2)
        means = [value / items for value in values]
        return dict(zip(self.names, means, strict=True)), round(tokens)


class DpoLoss(RecordLoss):
    """A loss of preferences, with a term for the likelihood of the chosen response.

    With log π and log ρ for a response's log-probability under the policy and the reference (the
    sum over the tokens that count, or their mean with `normalize`), a response has the reward
    r = β (log π − log ρ), or β log π where there is no reference. A record's loss is a function of
    r₊ (chosen) and r₋ (rejected), plus nll · NLL(chosen). With m = r₊ − r₋:

    - dpo: −log σ(m) (Rafailov et al., arXiv:2305.18290, eq. 7); with a length penalty α,
      −log σ(m + α (|y₊| − |y₋|)), so that the model is rewarded for r − α |y| (Park et al.,
      arXiv:2403.19159).
    - ipo: (m/β − 1/(2β))² (Azar et al., arXiv:2310.12036, eq. 17, whose τ is β, and whose
      log-probabilities are those of whole responses, as here without `normalize`).
    - robust: ((1 − ε) ℓ(m) − ε ℓ(−m)) / (1 − 2ε), where ℓ is the loss of dpo: its mean under labels
      of which the share ε is wrong is ℓ under right ones (Chowdhury et al., arXiv:2403.00409).
    - hinge: max(0, 1 − m) (Zhao et al., arXiv:2305.10425, with rewards as Liu et al.,
      arXiv:2309.06657, have them).
    - apo_zero: σ(−r₊) + σ(r₋), and apo_down: σ(r₊) + σ(−m) (D'Oosterlinck et al., arXiv:2408.06266,
      eq. 7 and 8, up to a constant).
    - simpo: −log σ(m − γ), without reference (Meng et al., arXiv:2405.14734, eq. 6).
    - cpo: −log σ(m), without reference (Xu et al., arXiv:2401.08417, eq. 3).
    - orpo: −β log σ(o₊ − o₋), with o = log (p / (1 − p)) and log p the mean over a response's
      tokens (Hong et al., arXiv:2403.07691, eq. 6 and 7, whose λ is β).

    dpo, ipo and cpo are ℓ(m) for some ℓ; with label smoothing they are (1 − ε) ℓ(m) + ε ℓ(−m)
    (Mitchell: A note on DPO with noisy preferences, 2023). NLL(chosen) is the mean cross-entropy of
    the chosen response's tokens that count (Pang et al., arXiv:2404.19733, eq. 2; Llama 3,
    arXiv:2407.21783, §4.1.4, with the coefficient 0.2).

    Reported: `preference_loss`, `nll` (without its coefficient), `accuracy` (share with m > 0),
    `chosen_reward` and `rejected_reward`, which are r₊ and r₋, and `margin`, which is m.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(RecordLoss.Config):
        objective: Dpo

    names = ("preference_loss", "nll", "accuracy", "margin", "chosen_reward", "rejected_reward")

    def _sum(self, pred: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            pred: cross-entropies of response tokens, shape (N,).
            rows: `counts`, int64, shape (2 R,): how many of them belong to each record's chosen
                and rejected response; `reference`, float32, shape (R, 2): log-probabilities of
                the two, summed over the same tokens; absent for losses without a reference.
        """
        counts = rows["counts"].view(-1, 2)
        sums = sums_of(pred, rows["counts"]).view_as(counts)
        found = preference_figures(self._objective, sums, counts, rows.get("reference"))
        margin, rewards = found["margin"], (found["chosen_reward"], found["rejected_reward"])
        told = (found["preference_loss"], found["nll"], margin > 0, margin, *rewards)
        self._count(*told, tokens=rows["tokens"])
        return found["loss"].sum()


def preference_figures(
    objective: Dpo, sums: torch.Tensor, counts: torch.Tensor, reference: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """The loss of each record, and what `DpoLoss` reports of it: shape (R,) each.

    Args:
        sums: cross-entropies of the chosen and the rejected response: shape (R, 2).
        counts: how many tokens they are sums over: shape (R, 2).
        reference: log-probabilities of the two under the reference: shape (R, 2); None for losses
            without one.
    """
    ratio = -sums
    if objective.compares:
        assert reference is not None
        ratio = ratio - reference
    if objective.normalize:
        ratio = ratio / counts
    rewards = objective.beta * ratio
    margin = rewards[:, 0] - rewards[:, 1]
    preference = _preference(objective, rewards, margin + _longer(objective, counts))
    nll = sums[:, 0] / counts[:, 0]
    return {
        "loss": preference + objective.nll * nll,
        "preference_loss": preference,
        "nll": nll,
        "margin": margin,
        "chosen_reward": rewards[:, 0],
        "rejected_reward": rewards[:, 1],
    }


def _longer(objective: Dpo, counts: torch.Tensor) -> torch.Tensor | float:
    """What the chosen response's length has contributed to its being chosen: shape (R,).

    Args:
        counts: tokens of chosen and rejected responses, shape (R, 2).
    """
    penalty = objective.length_penalty
    return penalty * (counts[:, 0] - counts[:, 1]) if penalty else 0.0


def _preference(objective: Dpo, rewards: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """The loss of records without their NLL, shape (R,).

    Args:
        rewards: of chosen and rejected responses, shape (R, 2).
        margin: their differences, and what length adds to them, shape (R,).
    """
    chosen, rejected = rewards.unbind(1)
    wrong, beta = objective.label_smoothing, objective.beta
    match objective.objective:
        case "robust":
            right, swapped = (1 - wrong) * _of(objective, margin), wrong * _of(objective, -margin)
            return (right - swapped) / (1 - 2 * wrong)
        case "apo_zero":
            return torch.sigmoid(-chosen) + torch.sigmoid(rejected)
        case "apo_down":
            return torch.sigmoid(chosen) + torch.sigmoid(-margin)
        case "orpo":
            odds = log_odds(chosen / beta) - log_odds(rejected / beta)
            return -beta * F.logsigmoid(odds)
    if wrong:
        return (1 - wrong) * _of(objective, margin) + wrong * _of(objective, -margin)
    return _of(objective, margin)


def _of(objective: Dpo, margin: torch.Tensor) -> torch.Tensor:
    """The losses that are functions of the margin alone."""
    beta = objective.beta
    match objective.objective:
        case "ipo":
            return (margin / beta - 1 / (2 * beta)).square()
        case "hinge":
            return F.relu(1 - margin)
    return -F.logsigmoid(margin - objective.gamma)


def log_odds(log_p: torch.Tensor) -> torch.Tensor:
    """log (p / (1 − p)), of log p ≤ 0.

    Mächler: Accurately computing log(1 − exp(−|a|)) (2012). A probability that rounds to 1 has odds
    all the same.
    """
    log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).eps)
    near = torch.log(-torch.expm1(log_p))
    far = torch.log1p(-log_p.exp())
    return log_p - torch.where(log_p > -math.log(2), near, far)


def sums_of(values_N: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The sums of consecutive groups of these sizes: shape of `counts`.

    On a GPU, `index_add` would add in a different order every time.
    """
    return torch.segment_reduce(values_N, "sum", lengths=counts, initial=0)


def share(loss: torch.Tensor, items: torch.Tensor | None) -> torch.Tensor:
    """A local sum over the number of items of the global batch."""
    return loss if items is None else loss / items
