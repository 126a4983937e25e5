"""Chooses the sampling engine: vLLM, or transformers on one device."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ...compiler.as_written import counted
from ...compiler.values import Resources
from ..errors import RunError
from ..peers import SINGLE, Peers
from ..stopping import check
from .decoding import Decoder
from .drawing import Generator, Request, Settings

BATCH_TOKENS = 16_384
"""The most tokens, including those to come, in a CPU's cache of keys and values."""

BATCH = 16
"""Sequences that lm-evaluation-harness sends through the model at once."""

SHARE = 0.5
"""Share of a GPU's memory for the cache of keys and values."""


def with_vllm() -> bool:
    """Whether vLLM draws: it is installed, and there is a GPU."""
    return find_spec("vllm") is not None and torch.cuda.is_available()


def generator(
    model: Path,
    mesh: Resources | None = None,
    context: int | None = None,
    peers: Peers = SINGLE,
) -> Generator:
    """vLLM if it is installed and there is a GPU, else transformers; so too on one rank of several.

    Args:
        mesh: of the job, whose ranks all call this together; None: one process draws.
        context: tokens of the longest sequence that the job needs; None: the model's.
        peers: the ranks of the mesh.

    Raises: RunError: the model cannot be loaded, or needs vLLM, which is not installed.
    """
    if with_vllm() and (mesh is None or mesh.device != "cpu") and _all_write(mesh):
        from .kept import engine

        return engine(model, mesh, context, peers)
    require_vllm(mesh)
    return Transformers(model)


_loading = threading.Lock()
"""Held while a model is loaded: transformers replaces the functions of torch.nn.init for that time,
and two threads at once would leave its own in their place."""


def _all_write(mesh: Resources | None) -> bool:
    """Whether all ranks of this process's gang have a part in the job: vLLM's groups are made by
    all of them together."""
    return int(os.environ.get("WORLD_SIZE", "1")) == (mesh.world_size if mesh else 1)


def require_vllm(mesh: Resources | None) -> None:
    """Raises: RunError: a model on several GPUs needs vLLM, which is not installed."""
    if mesh is not None and mesh.replica > 1 and find_spec("vllm") is None:
        raise RunError(
            f"the model that writes needs {counted(mesh.replica, 'GPUs')}, over which vLLM "
            "spreads it, and vLLM is not installed",
            "pip install vllm, on all nodes",
        )


class Transformers:
    """Draws in rows that come and go, see `decoding`.

    Args:
        model: folder of the exported model.
        batch_tokens: the most tokens in the cache; chosen according to the device if it is None.
    """

    def __init__(self, model: Path, *, batch_tokens: int | None = None) -> None:
        logging.disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        try:
            with _loading:
                network: Any = AutoModelForCausalLM.from_pretrained(
                    model, dtype=torch.bfloat16 if on_gpu else torch.float32
                )
        except (OSError, ValueError, KeyError) as problem:
            reason = " ".join(str(problem).split())[:300]
            raise RunError(
                f"the model {model} cannot be loaded: {reason}",
                f"remove {model}; the next run rebuilds it",
            ) from None
        self._network = network.to("cuda" if on_gpu else "cpu").eval()
        self.context: int = network.config.max_position_embeddings
        self._batch_tokens = batch_tokens or _cache_tokens(network)

    def draw(
        self, requests: Sequence[Request], settings: Settings
    ) -> Iterator[tuple[int, list[int]]]:
        """See `Generator.draw`."""
        yield from Decoder(self._network, settings, self._batch_tokens).draw(requests)

    def in_harness(self, load: Callable[[str], Any], tokenizer: Any, *, begins: bool) -> Any:
        """See `Generator.in_harness`."""
        self._network.register_forward_pre_hook(lambda *_: check("the measure begins anew"))
        return load("lm_eval.models.huggingface").HFLM(
            pretrained=self._network,
            tokenizer=tokenizer,
            batch_size=BATCH,
            max_length=self.context,
            add_bos_token=begins,
        )


def _cache_tokens(network: Any) -> int:
    """Tokens that the cache may hold.

    On a GPU it depends on the total memory, not the free memory, so that the same job makes the
    same batches.
    """
    if network.device.type == "cpu":
        return BATCH_TOKENS
    config = network.config
    width = config.num_key_value_heads * config.head_dim
    per_token = 2 * config.num_hidden_layers * width * network.dtype.itemsize
    memory = torch.cuda.get_device_properties(network.device).total_memory
    return max(int(memory * SHARE) // per_token, 1)
