"""What published files have twice: copies of embedding and output in every module that predicts a
further token (arXiv:2412.19437 §2.2), by which vLLM and SGLang find them there."""

from collections.abc import Callable, Iterable, Mapping

from ....compiler.values import Architecture
from ..checkpoints.storage import HEAD

MODULE = "mtp_layers."
"""How the names of a module's tensors begin in a checkpoint."""


def _named(end: str) -> Callable[[Architecture], Iterable[str]]:
    return lambda model: [f"model.layers.{model.layers + k}.{end}" for k in range(model.mtp)]


COPIES: Mapping[str, Callable[[Architecture], Iterable[str]]] = {
    "tok_embeddings.weight": _named("embed_tokens.weight"),
    HEAD: _named("shared_head.head.weight"),
}
"""Tensor of a checkpoint → its copies in published files."""
