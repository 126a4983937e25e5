"""Builds train jobs with torchtitan's own trainer, without weights, as ranks of a fake group.

`python -m etude.runtime.engine.without_weights` reads one configuration per line of JSON and writes
one result for each; `runtime/rehearsal.py` starts it. torchtitan's `Trainer` is built as in
training up to its optimizer: it makes all its checks, and stops with a model whose weights have
shapes but no content.
"""

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any, TextIO, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ...compiler.plan.plan import TrainJob
from ...compiler.torchtitan.told import on_cpus
from ..errors import RunError
from .device import prepare


class _Built(Exception):
    """Stops a trainer's construction once its model is built."""

    def __init__(self, parts: list[nn.Module]) -> None:
        self.parts = parts


def examine(job: TrainJob, sequences: int, ranks: list[tuple[int, int]]) -> dict[str, Any]:
    """What torchtitan says about a job.

    Args:
        sequences: the global batch.
        ranks: (rank, pipeline stage) of the ranks to simulate.

    Returns:
        `rejected` (torchtitan's reason, or None), `parameters` of the whole model, `reshaped`
        (messages about weights whose shape changes when they are sharded), `ranks` (for each of
        them its `rank`, `stage` and the parameters `held`) and `seconds`. Or `died`: the status of
        a process that ended without an answer.
    """
    began = time.perf_counter()
    answer: dict[str, Any] = {"rejected": None, "parameters": 0, "reshaped": [], "ranks": []}
    for rank, stage in ranks:
        found = _apart(job, sequences, rank)
        if "died" in found:
            return found
        if found["rejected"]:
            answer["rejected"] = found["rejected"]
            break
        answer["parameters"] = found["parameters"]
        answer["reshaped"] += found["reshaped"]
        answer["ranks"].append({"rank": rank, "stage": stage, "held": found["held"]})
    answer["seconds"] = round(time.perf_counter() - began, 2)
    return answer


def _apart(job: TrainJob, sequences: int, rank: int) -> dict[str, Any]:
    """One rank, in a fork of this process: torchtitan keeps meshes for the process's lifetime."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 1
        try:
            found = _rank(job, sequences, rank)
            with open(write, "w") as answer:
                json.dump(found, answer)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"died": os.waitstatus_to_exitcode(status)}


def _rank(job: TrainJob, sequences: int, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {"rejected": None, "reshaped": []}
    try:
        parts, shapes, whole = _play(job, sequences, rank)
    except RunError as error:
        return found | {"rejected": error.message}
    except Exception as error:
        return found | {"rejected": _reason(error)}
    for name, weight in (pair for part in parts for pair in part.named_parameters()):
        name = name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
        if weight.shape != shapes[name]:
            was, now = (" × ".join(map(str, s)) for s in (shapes[name], weight.shape))
            found["reshaped"].append(f"{name} of {was} to {now}")
    found["parameters"] = whole
    return found | {"held": sum(map(_held, parts))}


def _reason(error: Exception) -> str:
    """An assertion without a message is explained by its source line."""
    words = str(error).strip().splitlines()
    frame = extract_tb(error.__traceback__)[-1]
    return words[0] if words else f"{frame.name}: {frame.line}"


def _play(
    job: TrainJob, sequences: int, rank: int
) -> tuple[list[nn.Module], dict[str, torch.Size], int]:
    """A rank's sharded parts of the model, the shapes of all weights of the model by name, and its
    number of parameters."""
    # After `prepare`, like every import of torchtitan.
    from torchtitan.components.dataloader import BaseDataLoader
    from torchtitan.components.metrics import MetricsProcessor
    from torchtitan.components.optimizer import OptimizersContainer

    from . import trainer
    from .config import trainer_config

    class Stop(OptimizersContainer.Config):
        def build(self, *, model_parts: list[nn.Module], **_: Any) -> Any:
            raise _Built(model_parts)

    # Fields that only GPUs have change no shape, and this machine may have none.
    config = trainer_config(
        job.model_copy(update={"torchtitan": on_cpus(job.torchtitan)}),
        Path("unused"),
        dataloader=cast(Any, BaseDataLoader.Config()),
        start=None,
        on_event=lambda event: None,
    )
    config.optimizer = Stop()
    config.metrics = MetricsProcessor.Config()
    config.comm.mode = "fake_backend"
    config.training.global_batch_size = sequences
    os.environ |= {
        "NGPU": str(job.resources.world_size),
        "WORLD_SIZE": str(job.resources.world_size),
        "RANK": str(rank),
        "LOCAL_RANK": "0",
    }
    shapes: dict[str, torch.Size] = {}
    whole = 0
    model_type = type(config.model_spec.model)  # type: ignore[union-attr]
    counted = model_type.get_nparams_and_flops

    def count(self: Any, model: Any, seq_len: int) -> tuple[int, int]:
        shapes.update(
            (name, weight.shape) for name, weight in model.named_parameters(remove_duplicate=False)
        )
        nonlocal whole
        whole = sum(weight.numel() for weight in model.parameters())
        return counted(self, model, seq_len)

    model_type.get_nparams_and_flops = count
    try:
        config.build()
    except _Built as built:
        if job.resources.context > 1 and job.resources.device != "cpu":
            _cut_sequence(job, trainer)
        return built.parts, shapes, whole
    raise AssertionError("torchtitan's trainer builds no optimizer")


def _held(part: Any) -> int:
    if getattr(part.config, "enable_weight_tying", False):
        # Like `Decoder.init_states`, which draws no weights here.
        part.tok_embeddings.weight = part.lm_head.weight
    return sum(
        (weight.to_local() if isinstance(weight, DTensor) else weight).numel()
        for weight in part.parameters()
    )


def _cut_sequence(job: TrainJob, trainer: Any) -> None:
    """Shards a row's mask among context-parallel ranks, as torchtitan does at the first step."""
    from torch.distributed.tensor.experimental._context_parallel import _attention
    from torch.nn.attention.flex_attention import BlockMask
    from torchtitan.distributed.context_parallel import cp_shard

    class Passed(Exception):
        pass

    def passed(*_: Any, **__: Any) -> Any:
        raise Passed

    mesh = next(iter(trainer._LAYOUTS.values()))[1].get_mesh("cp")
    blocks = -(-job.seq_len // 128)
    mask = BlockMask.from_kv_blocks(
        torch.zeros(1, 1, blocks, dtype=torch.int32),
        torch.zeros(1, 1, blocks, blocks, dtype=torch.int32),
        seq_lengths=(job.seq_len, job.seq_len),
    )
    before = _attention._compiled_create_block_mask
    _attention._compiled_create_block_mask = passed
    row = torch.zeros(1, job.seq_len, dtype=torch.int32)
    try:
        cp_shard(mesh, (row,), mask)
    except Passed:
        pass
    finally:
        _attention._compiled_create_block_mask = before


def main(lines: TextIO, answers: TextIO) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # Models built for GPUs are examined on the CPU: nothing is computed.
    prepare("cpu")
    from torchtitan.protocols import BaseModel

    import_module(f"{__package__}.config")  # once for all forks of this process

    # Models stay on the meta device; a trainer would allocate and draw their weights.
    nn.Module.to_empty = lambda self, **_: self  # type: ignore[method-assign]
    BaseModel.init_weights = lambda self, **_: None  # type: ignore[method-assign]
    for line in lines:
        asked = json.loads(line)
        job = TrainJob.model_validate(asked["job"])
        with contextlib.redirect_stdout(sys.stderr):
            answer = examine(job, asked["sequences"], [tuple(pair) for pair in asked["ranks"]])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
