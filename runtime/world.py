"""torch's first process group, of all ranks of a gang, which trainers and engines that write share.

torch has one such group at a time. vLLM takes the one that is there, and makes groups of its own
within it: each replica of a model is a part of as many ranks as it needs, in their order (vLLM
0.32, `parallel_state.py`: ExternalDP). So an engine can sleep while the same processes train.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from .alone import be_alone
from .peers import Peers
from .run_folder.store import RANK_LOG

AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""torchrun's word that its own process listens where ranks meet."""
SECONDS = 300
"""Time limit of the first collectives, as torchtitan's `init_timeout_seconds`."""
RECORDED = 20_000
"""Collectives that the flight recorder keeps, as torchtitan's `trace_buf_size`."""
TRACES = "flight_recorder"
"""The folder among a run's logs with the last collectives of a stalled gang."""


def make(peers: Peers, ranks: int) -> None:
    """Makes the process group if there is none; all ranks call this together.

    They meet at a place of their own: where an earlier group has met, torch finds the addresses of
    one that is gone. What else torchtitan sets for its own group is set here too.

    Args:
        ranks: how many there are; 1: this process alone.
    """
    if dist.is_initialized():
        return
    _record()
    if "RANK" not in os.environ:
        be_alone(free_port())
    with _at(*(peers.meet(0) if ranks > 1 else ("127.0.0.1", free_port()))):
        _init()


def _init() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=SECONDS))


def _record() -> None:
    """Has NCCL keep the last collectives for messages about ranks that stall."""
    os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "3"
    os.environ["TORCH_FR_BUFFER_SIZE"] = str(RECORDED)
    if log := os.environ.get(RANK_LOG):
        folder = Path(log).resolve().parent / TRACES
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] = "1"
        os.environ["TORCH_FR_DUMP_TEMP_FILE"] = f"{folder}/rank_"


@contextmanager
def _at(address: str, port: int) -> Iterator[None]:
    """Has torch find the ranks at a place."""
    told = {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    before = {name: os.environ.get(name) for name in (*told, AGENT)}
    os.environ.update(told)
    os.environ.pop(AGENT, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """A port of this machine that is free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
