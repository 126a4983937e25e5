"""Losses of the routers of experts: of balance, within a sequence or over a batch, and of the size
of logits. Their gradient joins that of the cross-entropy in every layer, so that it reaches routers
in any part of a pipeline; the loss that is reported stays the cross-entropy.

Names carry shapes: B rows, L tokens of a row, E experts, K experts of a token.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import all_reduce
from torchtitan.distributed import ParallelDims
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.moe import TokenChoiceTopKRouter
from torchtitan.tools.utils import get_local_device

from ....compiler.schedule.timeline import Timeline
from ....compiler.values import ROUTER_LOSSES
from ..families.family import configurations, replace_modules


class _Attached(torch.autograd.Function):
    """A tensor unchanged, behind which a loss gets a gradient of 1."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        ctx.dtype = loss.dtype
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (grad,) = grads
        return grad, torch.ones((), dtype=ctx.dtype, device=grad.device)


class Learning:
    """A router that learns from losses of its own; it stands before a router's class.

    With s the scores of a token, which add up to 1 (those by a sigmoid are divided by their sum),
    N experts of which a token has K, and f_i = N / (K T) × how many of T tokens have expert i, a
    loss of balance is Σ_i f_i P_i, where P_i is the mean of s_i over the T tokens: 1 if all experts
    have as many (DeepSeek-V3, arXiv:2412.19437, eq. 17 to 20; Switch, arXiv:2101.03961, eq. 4 to 6,
    for K = 1). T is a row, or all tokens of a batch. f has no gradient. Of a softmax it counts the
    experts that are chosen (DeepSeek-V2, arXiv:2405.04434, eq. 24), of a sigmoid those with the
    best scores, without bias and groups (eq. 18).

    The loss of logits is the mean of log² Σ exp (ST-MoE, arXiv:2202.08906, eq. 5).

    Attributes:
        weights: float32, shape (3,), a buffer: by which the sums over this micro-batch's tokens of
            the losses in `ROUTER_LOSSES` are multiplied; None: nothing is learned.
        on: of each of these, whether it has a coefficient at any time.
        before, latest: float32, shape (E,), buffers: how many tokens of all ranks have had each
            expert in the step's earlier micro-batches, and in the last one.
        seen: float64, shape (3 + 2 E,), a buffer: sums over this rank's tokens since the last
            report: 1, losses of rows, of logits; choices, and scores of each expert. Recomputing a
            layer counts its tokens twice, which no mean depends on.
        in_row, in_batch: groups of ranks that have parts of a row, and of a batch.
    """

    weights: torch.Tensor | None
    before: torch.Tensor
    latest: torch.Tensor
    seen: torch.Tensor
    on: tuple[bool, bool, bool]
    in_row: Sequence[dist.ProcessGroup]
    in_batch: Sequence[dist.ProcessGroup]
    register_buffer: Any
    gate: Any
    top_k: int
    num_experts: int
    score_func: str

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # pyright: ignore[reportCallIssue] (it stands before a module)
        for name in ("weights", "before", "latest", "seen"):
            self.register_buffer(name, None, persistent=False)
        self._logits: torch.Tensor | None = None
        self.gate.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: Any, logits: torch.Tensor) -> None:
        self._logits = logits

    def forward(self, x_BLD: torch.Tensor, expert_bias_E: torch.Tensor | None = None) -> Any:
        """As torchtitan's: scores of the chosen experts, (B, L, K), their numbers, (B, L, K), and
        all scores, (B, L, E)."""
        kept_BLK, ids_BLK, scores_BLE = super().forward(  # pyright: ignore
            x_BLD, expert_bias_E
        )
        logits_BLE, self._logits = self._logits, None
        if self.weights is None or not torch.is_grad_enabled():
            return kept_BLK, ids_BLK, scores_BLE
        with torch.no_grad():
            counted = ids_BLK
            if self.score_func == "sigmoid":
                counted = scores_BLE.topk(self.top_k, dim=-1).indices
        loss = self._loss(scores_BLE.float(), logits_BLE, counted)
        return _Attached.apply(kept_BLK, loss), ids_BLK, scores_BLE

    def _loss(
        self, scores_BLE: torch.Tensor, logits_BLE: torch.Tensor | None, ids_BLK: torch.Tensor
    ) -> torch.Tensor:
        """What this micro-batch adds to the loss of the step."""
        assert self.weights is not None
        if self.score_func == "sigmoid":
            scores_BLE = scores_BLE / (scores_BLE.sum(-1, keepdim=True) + 1e-20)
        of_rows_BE = scores_BLE.sum(1)
        with torch.no_grad():
            chosen_BE = torch.zeros_like(of_rows_BE)
            ids = ids_BLK.flatten(1)
            chosen_BE.scatter_add_(1, ids, torch.ones_like(ids, dtype=chosen_BE.dtype))
        zero = scores_BLE.new_zeros(())
        rows = batch = logits = zero
        if self.on[0]:
            rows = (of_rows_BE * _load(_over(chosen_BE, self.in_row))).sum()
        if self.on[1]:
            with torch.no_grad():
                self.latest.copy_(_over(chosen_BE.sum(0), self.in_batch))
                load_E = _load(self.before + self.latest)
            batch = (of_rows_BE.sum(0) * load_E).sum()
        if self.on[2]:
            assert logits_BLE is not None
            logits = torch.logsumexp(logits_BLE.float(), -1).square().sum()
        with torch.no_grad():
            tokens = zero + ids_BLK.shape[0] * ids_BLK.shape[1]
            figures = torch.stack([tokens, rows, logits])
            self.seen.add_(torch.cat([figures, chosen_BE.sum(0), of_rows_BE.sum(0)]))
        return (torch.stack([rows, batch, logits]) * self.weights).sum()


def _over(counts: torch.Tensor, groups: Sequence[dist.ProcessGroup]) -> torch.Tensor:
    """The sums over the ranks of these groups."""
    for group in groups:
        counts = all_reduce(counts, "sum", group)
    return counts


def _load(chosen: torch.Tensor) -> torch.Tensor:
    """f of the experts, shape (…, E), from how many tokens have each: 1 if all have as many."""
    return chosen * (chosen.shape[-1] / chosen.sum(-1, keepdim=True).clamp(min=1))


@cache
def _learning(kind: type) -> type:
    """The router's class with losses."""

    class LearningRouter(Learning, kind):
        @dataclass(kw_only=True, slots=True)
        class Config(kind.Config):
            pass

    return LearningRouter


def learn(model: Decoder.Config) -> None:
    """Replaces the routers of a model, before it is built."""
    kinds = {of._owner for of in configurations(model) if of._owner is not None}
    routers = [kind for kind in kinds if issubclass(kind, TokenChoiceTopKRouter)]
    replace_modules(model, {kind: _learning(kind) for kind in routers})


class RouterLosses:
    """The losses of the routers that this rank has, in the steps of a job.

    Args:
        parts: of the model, those of this rank's stages of a pipeline; already parallelized.
    """

    def __init__(self, timeline: Timeline, parts: Iterable[nn.Module], dims: ParallelDims) -> None:
        self._timeline, self._device = timeline, get_local_device()
        self._names = [name for name in ROUTER_LOSSES if name in timeline.schedule.settings]
        self._meshes = [dims.get_optional_mesh(name) for name in ("loss", "tp")]
        self._pipeline = dims.get_optional_mesh("pp")
        # With experts apart, tensor ranks have different tokens; otherwise all have the same, and
        # their gradients of scores are added up.
        apart = dims.ep_enabled
        self._share = 1.0 if apart or not dims.tp_enabled else 1 / dims.tp
        in_row = _groups(dims, "cp", *(("tp",) if apart else ()))
        in_batch = _groups(dims, "loss", *(("tp",) if apart else ()))
        self._routers: list[Any] = [
            module for part in parts for module in part.modules() if isinstance(module, Learning)
        ]
        for router in self._routers:
            experts, on = router.num_experts, [name in self._names for name in ROUTER_LOSSES]
            router.on, router.in_row, router.in_batch = tuple(on), in_row, in_batch
            router.weights = torch.zeros(len(on), device=self._device)
            router.before, router.latest = torch.zeros(2, experts, device=self._device)
            router.seen = torch.zeros(3 + 2 * experts, dtype=torch.float64, device=self._device)

    def begin(self, step: int) -> None:
        """Sets the coefficients of a step of the stage, before its first micro-batch."""
        values = self._timeline.settings(step)
        tokens = self._timeline.batch(step) * self._timeline.seq_len
        weights = [self._share * values.get(name, 0.0) / tokens for name in ROUTER_LOSSES]
        for router in self._routers:
            router.weights.copy_(torch.tensor(weights))
            router.before.zero_()

    def learned(self) -> None:
        """Keeps the choices of micro-batches whose gradients are computed."""
        for router in self._routers:
            router.before.add_(router.latest)

    def collect(self) -> Mapping[str, float]:
        """The losses of the global batch since the last call, without coefficients: the means over
        all layers with experts. All ranks call this together."""
        totals = torch.zeros(len(ROUTER_LOSSES) + 1, dtype=torch.float64, device=self._device)
        if self._routers:
            seen = torch.stack([router.seen for router in self._routers])
            for mesh in self._meshes:
                if mesh is not None:
                    dist.all_reduce(seen, group=mesh.get_group())
            for router in self._routers:
                router.seen.zero_()
            tokens, rows, logits = seen[:, :3].unbind(1)
            chosen, scores = seen[:, 3:].chunk(2, dim=1)
            batch = (_load(chosen) * scores).sum(1) / tokens
            figures = torch.stack([rows / tokens, batch, logits / tokens, tokens / tokens])
            totals += figures.sum(1)
        if self._pipeline is not None:
            dist.all_reduce(totals, group=self._pipeline.get_group())
        *found, layers = totals.tolist()
        # All layers of a model with experts may be among those without.
        count = max(layers, 1.0)
        means = {name: each / count for name, each in zip(ROUTER_LOSSES, found, strict=True)}
        return {name: means[name] for name in self._names}


def _groups(dims: ParallelDims, *names: str) -> list[dist.ProcessGroup]:
    """The groups of this rank in the meshes that there are."""
    meshes = (dims.get_optional_mesh(name) for name in names)
    return [mesh.get_group() for mesh in meshes if mesh is not None]
