"""Packages with kernels that PyTorch does not have itself: of attention, and of exchanges between
experts."""

import importlib.util

from ...compiler.costs.hardware import BLACKWELL, HOPPER, gpu
from ...compiler.plan.plan import TrainJob
from ...compiler.torchtitan.told import ATTENTION, DISPATCHER
from ..errors import RunError

DEEP_EP, DEEP_EP_SOURCE = "deep_ep", "git+https://github.com/deepseek-ai/DeepEP"
"""Its module, and what pip installs; version 2, as torchtitan 0.3 wants it."""
FOURTH, THIRD = "flash_attn.cute", "flash_attn_interface"
"""Modules of FlashAttention 4 and 3, as torch 2.14 imports them (`nn/attention/_fa4.py`,
`_fa3.py`)."""


def require_attention(job: TrainJob) -> None:
    """
    Raises: RunError: the kernels of a job's attention are not installed.
    """
    backend = job.torchtitan.get(ATTENTION, {}).get("backend", "flex")
    module = kernels(backend, job.resources.device)
    if module and not there(module):
        third = module == THIRD
        raise RunError(
            f"`attention = {backend}` needs FlashAttention {3 if third else 4} on this GPU, and "
            f"its module {module} is not installed",
            "write `attention = flex`, or install it: "
            + (
                "build `hopper` of github.com/Dao-AILab/flash-attention"
                if third
                else "pip install --pre flash-attn-4"
            ),
        )


def require_dispatcher(job: TrainJob) -> None:
    """
    Raises: RunError: the kernels by which a job's tokens reach experts are not installed.
    """
    if (kind := exchanging(job)) and not there(DEEP_EP):
        raise RunError(
            f"`dispatcher = {kind}` needs DeepEP 2, and its module {DEEP_EP} is not installed",
            f"write `dispatcher = all_to_all`, or install it: pip install {DEEP_EP_SOURCE}",
        )


def exchanging(job: TrainJob) -> str | None:
    """The dispatcher of a job, if it is one of DeepEP's (torchtitan 0.3, `distributed/deepep`)."""
    kind = job.torchtitan.get(DISPATCHER, {}).get("backend")
    return kind if kind in ("deepep", "hybridep") else None


def kernels(backend: str, device: str) -> str | None:
    """The module that a backend imports on a GPU; None for what PyTorch has. `varlen` takes the
    newest FlashAttention that the GPU has (torchtitan 0.3, `get_cuda_flash_attention_impl`)."""
    known = gpu(device)
    capability = known.capability if known else 0.0
    if backend == "flex_flash" or (backend == "varlen" and capability >= BLACKWELL):
        return FOURTH
    return THIRD if backend == "varlen" and capability >= HOPPER else None


def there(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of the package around it
        return False
