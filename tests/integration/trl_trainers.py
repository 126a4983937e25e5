"""TRL's trainers without what trains: their losses on a model of a few numbers."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

TRL = Path(__file__).parents[2] / "build" / "trl"
VOCAB = 11
PAD = 0

Tokens = list[list[int]]


def trl(path: str) -> Any:
    """A class of TRL. Without TRL the test is skipped, or fails where all have to run."""
    if not (TRL / "trl").exists() and not os.environ.get("ETUDE_NEEDS_TRL"):
        pytest.skip("needs TRL in build/trl: make build/trl/.installed")
    if str(TRL) not in sys.path:
        sys.path.insert(0, str(TRL))
    module, name = path.rsplit(".", 1)
    return getattr(import_module(f"trl.{module}"), name)


def trainer(path: str, model: Any, **attributes: Any) -> Any:
    """A trainer that no constructor has seen, with the attributes that its loss reads; on one
    process, in the midst of training."""
    from accelerate import Accelerator

    kind = trl(path)
    found = object.__new__(kind)
    found.__dict__ |= {
        "model": model,
        "accelerator": Accelerator(cpu=True),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        **attributes,
    }
    return found


class Bigrams(torch.nn.Module):
    """The logits of the next token are a row of a table, float64, shape (VOCAB, VOCAB)."""

    is_gradient_checkpointing = False

    def __init__(self, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
        self.table = torch.nn.Parameter(drawn.double())

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        fused_lm_head: bool = False,
        **_: Any,
    ) -> Any:
        """With `fused_lm_head`, as TRL's heads have it: for each label but the first its
        log-probability, 0 where it is ignored, and what is reported of the place."""
        logits = self.table[input_ids]
        if not fused_lm_head:
            return SimpleNamespace(logits=logits)
        assert labels is not None
        logs, following = logits[:, :-1].log_softmax(-1), labels[:, 1:]
        counted = following != -100
        of_labels = logs.gather(2, following.clamp(min=0)[..., None])[..., 0]
        return SimpleNamespace(
            log_probs=of_labels * counted,
            entropy=-(logs.exp() * logs).sum(-1).detach() * counted,
            mean_logits=logits[:, :-1].mean(-1).detach() * counted,
            is_top1=(logs.argmax(-1) == following) & counted,
        )

    def cross_entropies(self, prompts: Tokens, answers: Tokens) -> torch.Tensor:
        """Of the answers' tokens, one answer after the other: shape (all of them,)."""
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens = torch.tensor(prompt + answer)
            each = F.cross_entropy(self.table[tokens[:-1]], tokens[1:], reduction="none")
            found.append(each[-len(answer) :])
        return torch.cat(found)

    def log_probabilities(self, prompts: Tokens, answers: Tokens) -> torch.Tensor:
        """Of whole answers, without gradient: shape (answers,)."""
        of = -self.cross_entropies(prompts, answers).detach()
        return torch.stack([part.sum() for part in of.split([len(a) for a in answers])])


def drawn(seed: int, sizes: Sequence[int]) -> Tokens:
    """Texts of these many tokens, none of which is `PAD`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCAB, (size,), generator=generator).tolist() for size in sizes]


def padded(prompts: Tokens, answers: Tokens) -> dict[str, torch.Tensor]:
    """Rows of a prompt and an answer, filled up at the end, as TRL's collators make them."""
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(prompts), width), PAD)
    counted, there = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        counted[row, len(prompt) : end] = 1
        there[row, :end] = 1
    return {"input_ids": ids, "attention_mask": there, "completion_mask": counted}
