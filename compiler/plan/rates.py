"""How fast a job computes, measured by the definitions of the plan's estimates."""

from ..costs.hardware import gpu
from .plan import Cost, TrainJob


def model_flops(cost: Cost) -> int:
    """Model FLOPs of a token, as `Cost.mfu` counts them: 6 × all active parameters and causal
    attention scores, nothing that is recomputed; 0 if unknown.

    torchtitan counts otherwise: without the embedding, and with scores of keys in the future.
    """
    return cost.flops_per_token + cost.attention_flops_per_token


def peak_flops(job: TrainJob) -> float | None:
    """Peak FLOP/s of a GPU of the job, dense, in fp32 or else in bf16; None on a CPU, or on a GPU
    that is not known."""
    device = gpu(job.resources.device)
    if device is None:
        return None
    training = job.torchtitan.get("training") or {}
    return device.fp32 if training.get("mixed_precision_param") == "float32" else device.bf16


def utilization(job: TrainJob, tokens_per_second: float) -> dict[str, float]:
    """TFLOP/s of a rank, and MFU as a share of the peak; either is left out where it is unknown.

    Args:
        tokens_per_second: of all ranks together.
    """
    flops = model_flops(job.cost) * tokens_per_second / job.resources.world_size
    peak = peak_flops(job)
    found = {"tflops": flops / 1e12, "mfu": flops / peak if peak else 0.0}
    return {name: value for name, value in found.items() if value}
