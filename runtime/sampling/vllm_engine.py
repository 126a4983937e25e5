"""Answers from vLLM: its scheduler batches, its cache is paged, over all GPUs of the job.

A model on several GPUs is served by as many processes, started by torchrun or a batch system on one
or more nodes: vLLM's executor for external launchers. Each process has a part of the model, and all
request the same answers in the same order and get the same results
(docs.vllm.ai, v0.21: `ExecutorWithExternalLauncher`; its example for torchrun).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ...compiler.costs.generation import CHUNK, MOST, SHARE
from ...compiler.values import Resources
from .. import stopping
from ..errors import RunError
from .drawing import Request, Settings

AHEAD = 4 * MOST
"""The most requests in vLLM at once: it never waits for one, and need not hold a million."""
ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # what a run prints may be JSON
    "VLLM_NO_USAGE_STATS": "1",
    # An engine in a process of its own outlives a killed run, and keeps the GPU's memory. With
    # several ranks, it would also be in another process than its worker.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""What vLLM finds in its environment (its `envs.py`)."""


def settings(mesh: Resources | None, context: int | None) -> dict[str, Any]:
    """vLLM's settings besides the model; see its `LLM`.

    Args:
        mesh: tensor and pipeline degrees; None: one GPU.
        context: tokens of the longest sequence; None: the model's.
    """
    told: dict[str, Any] = {
        "dtype": "bfloat16",
        "tensor_parallel_size": mesh.tensor if mesh else 1,
        "pipeline_parallel_size": mesh.pipeline if mesh else 1,
        "gpu_memory_utilization": SHARE,
        "max_num_seqs": MOST,
        "max_num_batched_tokens": CHUNK,
        # All ranks must schedule alike. Draws have their own seeds.
        "seed": 0,
        "disable_log_stats": True,
    }
    if context is not None:
        told["max_model_len"] = context
    if mesh is not None and mesh.world_size > 1:
        told["distributed_executor_backend"] = "external_launcher"
    return told


class Vllm:
    """A model in a vLLM engine.

    Args:
        engine: a `vllm.LLM`.
        model: the folder that it was loaded from.

    Attributes:
        model: the folder with its weights.
        asleep: whether it has no weights, and cannot draw.
    """

    def __init__(self, engine: Any, model: Path) -> None:
        self._whole, self.model = engine, model
        self.asleep = False
        self._engine: Any = engine.llm_engine
        self._parameters: Any = import_module("vllm").SamplingParams
        self.context: int = self._engine.model_config.max_model_len
        self._drawn = 0

    @classmethod
    def load(cls, model: Path, mesh: Resources | None, context: int | None) -> "Vllm":
        """The exported model in a folder; see `settings`.

        Raises: RunError: vLLM rejects it.
        """
        os.environ |= ENVIRONMENT
        vllm: Any = import_module("vllm")
        # vLLM refuses it where it is not available, as on CPUs.
        can_sleep = import_module("vllm.platforms").current_platform.is_sleep_mode_available()
        told = settings(mesh, context) | {"enable_sleep_mode": can_sleep}
        try:
            return cls(vllm.LLM(model=str(model), **told), model)
        except (RuntimeError, ValueError) as problem:
            raise refused(model, problem) from None

    def sleep(self) -> None:
        """Gives back the GPU memory of weights and cache; what vLLM has compiled and captured
        stays. On CPUs all of it stays, in memory that no GPU lacks.

        Raises: RunError: vLLM cannot.
        """
        if not self.asleep:
            self._try("sleep", lambda: self._whole.sleep(level=2))
            self.asleep = True

    def end(self) -> None:
        """Gives everything back. Python's collector of garbage would not: it spares what was there
        when a trainer was imported, in whose cycles the engine may be."""
        self._engine.engine_core.shutdown()

    def renew(self, model: Path) -> None:
        """Takes the weights of another model that differs in nothing else, and wakes up.

        Raises: RunError: vLLM cannot; the engine is of no use any more.
        """
        self.sleep()  # drops what it has cached of prompts
        self._try("take new weights", partial(self._renew, model))
        self.model, self.asleep = model, False

    def _renew(self, model: Path) -> None:
        self._whole.wake_up(tags=["weights"])
        self._whole.collective_rpc("reload_weights", kwargs={"weights_path": str(model)})
        # The memory of the cache is taken last: loading needs some for itself.
        if not self._whole.wake_up(tags=["kv_cache"]):
            raise RuntimeError("it does not wake up")

    def _try(self, what: str, do: Callable[[], Any]) -> None:
        try:
            do()
        except Exception as problem:  # of many kinds
            reason = " ".join(str(problem).split())[:300]
            raise RunError(
                f"vLLM cannot {what}: {type(problem).__name__}: {reason}",
                "its own messages say more; run again to continue",
            ) from None

    def draw(
        self, requests: Sequence[Request], settings: Settings
    ) -> Iterator[tuple[int, list[int]]]:
        """See `Generator.draw`; vLLM draws each request with its own seed.

        Raises:
            RunError: vLLM has ended.
            Interrupted: asked to stop, as vLLM's own process was.
        """
        first = self._drawn  # no two requests of an engine have the same name
        self._drawn += len(requests)
        waiting = iter(enumerate(requests, first))
        asked = self._ask(waiting, settings, AHEAD)
        while asked:
            for output in self._step():
                if output.finished:
                    asked -= 1
                    yield int(output.request_id) - first, _tokens(output.outputs[0])
            asked += self._ask(waiting, settings, AHEAD - asked)

    def _step(self) -> list[Any]:
        """What vLLM has drawn since the last time."""
        try:
            return self._engine.step()
        except Exception as problem:  # of many kinds, and its engine is gone after any of them
            stopping.check("what vLLM has not finished is drawn again")
            reason = " ".join(str(problem).split())[:300]
            raise RunError(
                f"vLLM failed while it wrote answers with {self.model}: {reason}",
                "its own messages say more; answers that are finished are kept, so run again to "
                "continue",
            ) from None

    def in_harness(self, load: Callable[[str], Any], tokenizer: Any, *, begins: bool) -> Any:
        """See `Generator.in_harness`: the harness's vLLM model, with the existing engine. Two would
        not fit on the same GPUs."""
        models = load("lm_eval.models.vllm_causallms")
        loads, models.LLM = models.LLM, lambda **_: self._whole
        try:
            made = models.VLLM(
                pretrained=str(self.model),
                add_bos_token=begins,
                batch_size="auto",
                max_model_len=self.context,
            )
        finally:
            models.LLM = loads
        made.tokenizer = tokenizer
        return made

    def _ask(self, waiting: Iterator[tuple[int, Request]], settings: Settings, most: int) -> int:
        """Passes up to `most` further requests to vLLM; returns how many."""
        for asked in range(most):
            number, request = next(waiting, (0, None))
            if request is None:
                return asked
            # With its type it is what vLLM's own renderer makes of tokens; without, since 0.32,
            # something to be rendered yet, of which vLLM says that it will refuse it.
            prompt = {"type": "token", "prompt_token_ids": request.tokens.tolist()}
            self._engine.add_request(str(number), prompt, self._sampling(request, settings))
        return most

    def _sampling(self, request: Request, settings: Settings) -> Any:
        return self._parameters(
            temperature=settings.temperature,
            top_p=settings.top_p if settings.temperature > 0 else 1.0,
            seed=request.seed,
            max_tokens=request.most,
            stop_token_ids=sorted(settings.stop),
            # The end of text is among the stops: vLLM names the stop that ended an answer, but not
            # if it treats the token as its own end of text.
            ignore_eos=True,
            skip_special_tokens=False,
            detokenize=False,
        )


def _tokens(drawn: Any) -> list[int]:
    """The tokens of an answer, including the one that ended it."""
    tokens = list(drawn.token_ids)
    # vLLM does not guarantee that the tokens include the stop token.
    if drawn.finish_reason == "stop" and tokens[-1:] != [drawn.stop_reason]:
        tokens.append(drawn.stop_reason)
    return tokens


def refused(model: Path, problem: Exception) -> RunError:
    """The error if vLLM does not load a model."""
    reason = " ".join(str(problem).split())[:300]
    return RunError(
        f"vLLM does not load {model}: {reason}",
        "see docs/evaluation.md for what it is told; a model that fits on one GPU is sampled "
        "through transformers where vLLM is not installed",
    )
