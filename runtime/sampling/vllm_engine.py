"""Answers from vLLM: continuous batches and paged attention, over all GPUs of the machine."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError
from .drawing import Request, Settings


class Vllm:
    """The model in a vLLM engine.

    Args:
        model: folder of the exported model.
        share: of each GPU's memory, for weights and cache.

    Raises: RunError: vLLM does not take the model.
    """

    def __init__(self, model: Path, *, share: float) -> None:
        vllm: Any = import_module("vllm")
        self._parameters = vllm.SamplingParams
        try:
            self._engine: Any = vllm.LLM(
                model=str(model),
                dtype="bfloat16",
                tensor_parallel_size=torch.cuda.device_count(),
                gpu_memory_utilization=share,
                disable_log_stats=True,
            )
        except (RuntimeError, ValueError) as problem:
            reason = " ".join(str(problem).split())[:300]
            raise RunError(
                f"vLLM cannot load {model}: {reason}",
                "uninstall vLLM to sample with transformers",
            ) from None
        self.context: int = self._engine.llm_engine.model_config.max_model_len

    def generate(self, requests: list[Request], settings: Settings) -> list[list[int]]:
        """See `Generator.generate`; vLLM draws each request with its own seed."""
        outputs = self._engine.generate(
            [{"prompt_token_ids": request.tokens.tolist()} for request in requests],
            [self._sampling(request, settings) for request in requests],
            use_tqdm=False,
        )
        answers = []
        for output in outputs:
            drawn = output.outputs[0]
            tokens = list(drawn.token_ids)
            # Whether the token that stopped the answer is among them, vLLM does not promise.
            if drawn.finish_reason == "stop" and tokens[-1:] != [drawn.stop_reason]:
                tokens.append(drawn.stop_reason)
            answers.append(tokens)
        return answers

    def _sampling(self, request: Request, settings: Settings) -> Any:
        return self._parameters(
            temperature=settings.temperature,
            top_p=settings.top_p if settings.temperature > 0 else 1.0,
            seed=request.seed,
            max_tokens=request.most,
            stop_token_ids=sorted(settings.stop),
            # The end of text is among the stops: vLLM names the one that it stopped at, but not
            # where it takes it for its own end of text.
            ignore_eos=True,
            skip_special_tokens=False,
            detokenize=False,
        )
