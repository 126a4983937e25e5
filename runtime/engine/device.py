"""The device that torchtitan trains on, chosen once per process, before torchtitan is imported."""

import ctypes
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from ..errors import RunError

KEPT = 1 << 30
"""Bytes that a process which trains on a CPU keeps at most when they are free."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, in malloc.h."""


def prepare(device: str) -> None:
    """Makes torchtitan run on `device` in this process.

    torchtitan looks for an accelerator when it is imported, and assumes CUDA if it finds none; its
    modules copy the result. So this must come before the first import of any other torchtitan
    module. Calling it again with the same device does nothing.

    Args:
        device: "cpu", or the name of a GPU, which leaves torchtitan's own choice.

    Raises:
        RunError: there is no GPU, or torchtitan already runs on another device in this process.
    """
    on_cpu = device == "cpu"
    if not on_cpu and not torch.accelerator.is_available():
        raise RunError(
            f"the plan needs the GPU {device}, but PyTorch sees no GPU on this machine",
            "run it on a machine with GPUs, or plan for a cluster of `cpu`",
        )
    from torchtitan.tools import utils

    if on_cpu:
        keep_memory()
    if on_cpu == (utils.device_type == "cpu"):
        return
    if "torchtitan.distributed.utils" in sys.modules:
        raise RunError(
            f"this process already trains on {utils.device_type}, and cannot switch to {device}",
            "run jobs on different devices in different processes",
        )
    utils.device_type = "cpu"
    utils.device_module = CpuModule("torch.cpu")


def keep_memory() -> None:
    """Lets the C library keep what tensors have freed, up to `KEPT`, for the next tensors.

    By default glibc gives it back to the system, which then has to fill every page with zeros
    again, in each step. Other C libraries, which have no `mallopt`, stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT)
        mallopt(_TRIM_THRESHOLD, KEPT)


def twice_backward(wanted: bool) -> None:
    """Lets compiled functions run backward more than once, or not.

    Schedules of pipelines that compute the gradients of weights apart keep the graph, and attention
    on GPUs is always compiled; compiled functions refuse that while they reuse the memory of what
    they have saved (torch 2.14, `donated_buffer`).
    """
    from torch._functorch import config

    config.donated_buffer = not wanted


def prepare_any() -> None:
    """Makes torchtitan importable for work that needs no particular device."""
    if "torchtitan.distributed.utils" not in sys.modules:
        prepare("gpu" if torch.accelerator.is_available() else "cpu")


class CpuModule(ModuleType):
    """`torch.cpu`, with the functions that torchtitan expects of a device module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def get_device_name(self, device: Any = None) -> str:
        return "cpu"

    def get_device_properties(self, device: Any = None) -> SimpleNamespace:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return SimpleNamespace(name="cpu", total_memory=memory)

    def device_count(self) -> int:
        return 1

    def set_device(self, device: Any) -> None:
        """There is only one."""

    def current_device(self) -> int:
        return 0

    def memory_stats(self, device: Any = None) -> dict[str, int]:
        return {}

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        """Nothing is counted."""

    def empty_cache(self) -> None:
        """Nothing is cached."""
