"""Samples tokens so that a draw depends only on its seed and its logits.

The argmax of log p + g, with g drawn independently for every token from the standard Gumbel
distribution, is distributed as p (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030, §2). If
another batch changes the logits by rounding, a token changes only if two of these sums are equal up
to rounding. Drawing from the cumulative distribution would shift with every token before it.
"""

from collections.abc import Sequence
from hashlib import sha256

import torch

SEEDS = 2**53
"""Seeds are below this, so that every JSON reader reads them exactly."""


def draw_seed(seed: int, prompt: int, draw: int) -> int:
    """The seed of draw `draw` of prompt `prompt`."""
    digest = sha256(f"{seed} {prompt} {draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % SEEDS


def drawn(
    scores: torch.Tensor, generators: Sequence[torch.Generator], *, temperature: float, top_p: float
) -> torch.Tensor:
    """Scores whose argmax is drawn: temperature, nucleus (Holtzman et al. 2020, arXiv:1904.09751,
    §3.1), then Gumbel noise from each row's own generator.

    Args:
        scores: logits of the next token: (rows, vocabulary).
        generators: of the rows.
        temperature: above 0.
        top_p: tokens are drawn from the smallest set whose probabilities sum to this.

    Returns: float32, (rows, vocabulary).
    """
    scores = scores.float() / temperature
    if top_p < 1:
        scores = _nucleus(scores, top_p)
    noise = torch.empty_like(scores)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return scores - noise.log()


def _nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores, with −∞ outside the nucleus; the most probable token always stays."""
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= top_p
    return scores.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
