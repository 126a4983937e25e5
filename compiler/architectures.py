"""Published model sizes, and parameter and FLOP counts from the shape alone."""

from typing import Any

from .values import Architecture

_LLAMA3: dict[str, Any] = {
    "kv_heads": 8,
    "vocab": 128_256,
    "rope_theta": 500_000.0,
    "rope_scaling": "none",
    "tied": False,
    "norm_eps": 1e-5,
}

PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    # arXiv:2407.21783, Table 3; 1B and 3B: the model cards of Llama 3.2.
    "llama3": {
        "1B": _LLAMA3 | {"layers": 16, "dim": 2048, "heads": 32, "ffn": 8192, "tied": True},
        "3B": _LLAMA3 | {"layers": 28, "dim": 3072, "heads": 24, "ffn": 8192, "tied": True},
        "8B": _LLAMA3 | {"layers": 32, "dim": 4096, "heads": 32, "ffn": 14336},
        "70B": _LLAMA3 | {"layers": 80, "dim": 8192, "heads": 64, "ffn": 28672},
        "405B": _LLAMA3 | {"layers": 126, "dim": 16384, "heads": 128, "ffn": 53248},
    }
}
"""family → size → shape: what the engine can build."""


def parameters(model: Architecture) -> int:
    """All parameters: embedding, attention, feed-forward, norms and output layer."""
    attention = model.dim * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    feed_forward = 3 * model.dim * model.ffn
    layer = attention + feed_forward + 2 * model.dim
    embeddings = model.vocab * model.dim * (1 if model.tied else 2)
    return model.layers * layer + model.dim + embeddings


def flops_per_token(model: Architecture) -> int:
    """Training FLOPs a token without attention scores: 6 N, N all parameters.

    This is the count that reports publish (Kaplan et al., arXiv:2001.08361, §2.1, with embeddings;
    Llama 3, arXiv:2407.21783, §1: 3.8e25 for 405B and 15.6T tokens).
    """
    return 6 * parameters(model)


def attention_flops_per_token(model: Architecture, seq_len: int) -> int:
    """Training FLOPs a token of causal attention scores: 6 · layers · heads · head_dim · seq_len.

    Scores and weighted sums take 2 · 2 · heads · head_dim multiply-adds a key, three times over for
    forward and backward; half of the keys lie in the future (PaLM, arXiv:2204.02311, Appendix B,
    halved).
    """
    return 6 * model.layers * model.heads * model.head_dim * seq_len
