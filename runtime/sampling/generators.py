"""Chooses the sampling engine: vLLM, or transformers on one device."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

from ...compiler.as_written import counted
from ...compiler.values import Resources
from ..errors import RunError
from ..stopping import check
from .drawing import Generator, Request, Settings
from .noise import Gumbel

BATCH_TOKENS = 16_384
"""The most tokens, including those to come, in a CPU's cache of keys and values."""

BATCH = 16
"""Sequences that lm-evaluation-harness sends through the model at once."""

SHARE = 0.5
"""Share of a GPU's memory for the cache of keys and values."""


def with_vllm() -> bool:
    """Whether vLLM draws: it is installed, and there is a GPU."""
    return find_spec("vllm") is not None and torch.cuda.is_available()


def generator(model: Path, mesh: Resources | None = None, context: int | None = None) -> Generator:
    """vLLM if it is installed and there is a GPU, else transformers.

    Args:
        mesh: of the job, whose ranks all call this together; None: one process draws.
        context: tokens of the longest sequence that the job needs; None: the model's.

    Raises: RunError: the model cannot be loaded, or needs vLLM, which is not installed.
    """
    if with_vllm():
        from .vllm_engine import Vllm

        return Vllm.load(model, mesh, context)
    require_vllm(mesh)
    return Transformers(model)


def require_vllm(mesh: Resources | None) -> None:
    """Raises: RunError: a model on several GPUs needs vLLM, which is not installed."""
    if mesh is not None and mesh.world_size > 1 and find_spec("vllm") is None:
        raise RunError(
            f"the model that writes needs {counted(mesh.world_size, 'GPUs')}, over which vLLM "
            "spreads it, and vLLM is not installed",
            "pip install vllm, on all nodes",
        )


class Transformers:
    """Draws in batches of similar length, padded on the left, with a cache of keys and values.

    Args:
        model: folder of the exported model.
        batch_tokens: the most tokens in the cache; chosen according to the device if it is None.
    """

    def __init__(self, model: Path, *, batch_tokens: int | None = None) -> None:
        logging.disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        try:
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
        order = sorted(range(len(requests)), key=lambda i: (-len(requests[i].tokens), i))
        while order:
            longest = max(len(requests[i].tokens) + requests[i].most for i in order)
            rows = max(self._batch_tokens // longest, 1)
            batch, order = order[:rows], order[rows:]
            drawn = self._batch([requests[i] for i in batch], settings)
            yield from zip(batch, drawn, strict=True)

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

    @torch.inference_mode()
    def _batch(self, requests: list[Request], settings: Settings) -> list[list[int]]:
        lengths = torch.tensor([len(each.tokens) for each in requests])
        width = int(lengths.max())
        tokens = torch.zeros(len(requests), width, dtype=torch.long)
        for row, each in zip(tokens, requests, strict=True):
            row[width - len(each.tokens) :] = torch.from_numpy(each.tokens.astype(np.int64))
        mask = torch.arange(width) >= (width - lengths)[:, None]
        device = self._network.device
        processors = []
        if settings.temperature > 0:
            seeds = [each.seed for each in requests]
            processors = [
                Gumbel(seeds, temperature=settings.temperature, top_p=settings.top_p, device=device)
            ]
        output = self._network.generate(
            input_ids=tokens.to(device),
            attention_mask=mask.to(device=device, dtype=torch.long),
            logits_processor=processors,
            generation_config=GenerationConfig(
                max_new_tokens=max(each.most for each in requests),
                do_sample=False,
                eos_token_id=sorted(settings.stop),
                pad_token_id=min(settings.stop),
            ),
        )
        drawn = output[:, width:].tolist()
        return [
            _cut(row[: each.most], settings.stop) for row, each in zip(drawn, requests, strict=True)
        ]


def _cut(tokens: list[int], stop: frozenset[int]) -> list[int]:
    """The tokens up to and including the first one that ends the answer."""
    for place, token in enumerate(tokens):
        if token in stop:
            return tokens[: place + 1]
    return tokens


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
