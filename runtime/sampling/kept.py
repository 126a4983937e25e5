"""The vLLM engine of this process, which stays from job to job: over the turns of a policy it
sleeps while the policy learns, and wakes up with the new weights."""

import gc
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ...compiler.values import Resources
from ..errors import RunError
from ..held import hold
from ..peers import SINGLE, Peers
from ..world import make
from .vllm_engine import Vllm


class _Kept(NamedTuple):
    """An engine, its ranks, and what it was made for: mesh, context, the model's `config.json`."""

    engine: Vllm
    peers: Peers
    ranks: int
    asked: tuple[Resources | None, int | None, dict[str, Any]]


_kept: list[_Kept] = []
"""At most one: two would not fit on the same GPUs."""


def engine(model: Path, mesh: Resources | None, context: int | None, peers: Peers) -> Vllm:
    """An engine with the weights of a model; all ranks of the mesh call this together.

    The engine that is there takes them if it was made for the same mesh and context, and for a
    model that differs in nothing but its weights. If that fails on any rank, all start anew.

    Raises: RunError: vLLM rejects the model.
    """
    ranks = mesh.world_size if mesh else 1
    peers = peers if ranks > 1 else SINGLE
    asked = mesh, context, _config(model)
    if not (_kept and _kept[0].asked == asked and _renewed(model)):
        release()
        make(peers, ranks)
        _kept.append(_Kept(Vllm.load(model, mesh, context), peers, ranks, asked))
    hold(sleep, release)
    return _kept[0].engine


def _config(model: Path) -> dict[str, Any]:
    """What vLLM makes its layers from; nothing if the folder lacks it, as vLLM says itself. What
    ends an answer is asked for with each."""
    try:
        found = json.loads((model / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in found.items() if not name.endswith("_token_id")}


def _renewed(model: Path) -> bool:
    """Whether the engine has the weights of a model now, on all ranks."""
    of = _kept[0].engine
    if of.model == model and not of.asleep:
        return True
    # What a trainer has left is in its allocator, and vLLM's cache needs the room.
    gc.collect()
    torch.cuda.empty_cache()
    return _kept[0].peers.all_say(_done(partial(of.renew, model)))


def sleep() -> None:
    """Gives back the engine's memory, on all ranks together: it sleeps, or ends on all of them if
    it cannot on one."""
    if not _kept:
        return
    of, peers, ranks, _ = _kept[0]
    if not peers.all_say(_done(of.sleep)):
        release()
        make(peers, ranks)


def _done(what: Callable[[], None]) -> bool:
    """Whether something was done; if not, the log says why."""
    try:
        what()
    except RunError as problem:
        logging.getLogger(__name__).warning("%s; vLLM starts anew", problem.message)
        return False
    return True


def release() -> None:
    """Ends the engine, and gives back what jobs in this process have left on the GPU.

    vLLM ends torch's process group with itself: it is no use to trainers, either.
    """
    if _kept:
        _kept.pop().engine.end()
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()
    gc.collect()
    torch.cuda.empty_cache()
