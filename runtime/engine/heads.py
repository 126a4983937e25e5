"""Decoders whose head is applied only at some positions, with outputs other than logits.

Names carry shapes: B sequences, L tokens, D dimensions, N places, V tokens of the vocabulary.
"""
# ruff: noqa: N803, N806 (the names are also torchtitan's)

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import spmd_types as spmd
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torchtitan.components.loss import _LossParallelCrossEntropy
from torchtitan.distributed.spmd_types import current_spmd_mesh, spmd_mesh_size
from torchtitan.models.common import Linear
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    dense_param_placement,
)
from torchtitan.protocols.sharding import ShardingConfig

from ...compiler.costs.reading import PIECE


class Likely(NamedTuple):
    """What is asked about likely tokens.

    Attributes:
        number: how many tokens, if they are not given.
        temperature: divides the logits.
        vocab: the tokens that there are, if they are fewer than the model's.
    """

    number: int
    temperature: float
    vocab: int | None


class TokenHead(Linear):
    """The output layer, returning the cross-entropy of one token at each place, or the
    log-probabilities of several.

    Logits are computed piece by piece, and recomputed for the gradient, so that those of all places
    never exist together. The vocabulary may be sharded (tensor parallelism).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        scale: float = 1.0  # factor on logits
        cap: float = 0.0  # of logits; 0: none
        temperature: float = 1.0  # divides the logits behind their cap

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._vocab, self._scale, self._cap = config.out_features, config.scale, config.cap
        self._temperature = config.temperature

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (logits are not made whole)
        self, input: torch.Tensor, targets: torch.Tensor | None, likely: Likely | None = None
    ) -> torch.Tensor:
        """
        Args:
            input: shape (1, N, D).
            targets: int64, shape (N,): the token after each place; or (N, K) with `likely`.

        Returns:
            −log p(token), in nats: float32, shape (N,). With `likely`: log p of the K tokens of
            each place, shape (N, K); without `targets`, of the likeliest ones, the likeliest first,
            and then their ids, shape (N, 2 K).
        """
        hidden_ND = input[0]
        asked = () if targets is None else (targets,)
        make = self._cross_entropy if likely is None else partial(self._likely, likely)
        if len(hidden_ND) <= PIECE:
            return make(hidden_ND, *asked)
        pieces = zip(*(each.split(PIECE) for each in (hidden_ND, *asked)), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([make(*piece) for piece in pieces])
        return torch.cat([checkpoint(make, *piece, use_reentrant=False) for piece in pieces])

    def _logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV = F.linear(hidden_ND, self.weight, self.bias).float()
        if self._scale != 1:
            logits_NV = logits_NV * self._scale
        if self._cap:
            logits_NV = self._cap * torch.tanh(logits_NV / self._cap)
        return logits_NV if self._temperature == 1 else logits_NV / self._temperature

    def _likely(
        self, asked: Likely, hidden_ND: torch.Tensor, targets_NK: torch.Tensor | None = None
    ) -> torch.Tensor:
        logits_NV = self._logits(hidden_ND)[:, : asked.vocab]
        if asked.temperature != 1:
            logits_NV = logits_NV / asked.temperature
        rest_N1 = logits_NV.logsumexp(1, keepdim=True)
        if targets_NK is not None:
            return logits_NV.gather(1, targets_NK) - rest_N1
        top_NK, ids_NK = logits_NV.topk(asked.number)
        return torch.cat([top_NK - rest_N1, ids_NK.float()], 1)

    def _cross_entropy(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        logits_NV = self._logits(hidden_ND)
        if spmd_mesh_size("tp") > 1:
            mesh = current_spmd_mesh()
            assert mesh is not None
            return _LossParallelCrossEntropy.apply(
                logits_NV, targets_N, mesh.get_group("tp"), self._vocab, "none"
            )
        return F.cross_entropy(logits_NV, targets_N, reduction="none")


@cache
def record_model(decoder: type[Decoder]) -> type[Decoder]:
    """A decoder whose forward pass returns an output for given places of the rows.

    With a `TokenHead`: the cross-entropy of `targets`; with a linear head of one output: scores.
    """
    base: Any = decoder

    class RecordModel(base):
        @dataclass(kw_only=True, slots=True)
        class Config(base.Config):
            def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
                base.Config.update_from_config(self, config=config, **kwargs)
                if self.lm_head.out_features == 1:
                    # A single output cannot be sharded: each tensor rank computes it whole.
                    whole = dense_activation_placement(tp=spmd.I)
                    assert self.norm.sharding_config is not None
                    self.norm.sharding_config.out_dst_shardings = whole
                    self.lm_head.sharding_config = ShardingConfig(
                        state_shardings={"weight": dense_param_placement(tp=spmd.I)}
                    )

        def forward(
            self,
            tokens: torch.Tensor,
            positions: torch.Tensor | None = None,
            attention_masks: Any = None,
            places: torch.Tensor | None = None,
            targets: torch.Tensor | None = None,
            likely: Likely | None = None,
        ) -> torch.Tensor:
            """
            Args:
                tokens: int64, shape (B, L).
                places: int64, shape (N,): places b · L + l.
                targets, likely: for a `TokenHead`.

            Returns:
                float32, shape (N,), or what a `TokenHead` returns.
            """
            assert places is not None
            hidden_BLD = self.tok_embeddings(tokens)
            for layer in self.layers.values():
                hidden_BLD = layer(hidden_BLD, attention_masks, positions)
            hidden_1ND = self.norm(hidden_BLD).flatten(0, 1)[places][None]
            if targets is not None or likely is not None:
                return self.lm_head(hidden_1ND, targets, likely)
            # FSDP2 hooks the returned tensor, which should not be a view.
            return self.lm_head(hidden_1ND).flatten().to(torch.float32, copy=True)

    return RecordModel
