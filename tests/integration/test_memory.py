"""The benchmark of memory: that an engine's step can be taken without a GPU, and be counted."""

import sys
from pathlib import Path

import pytest
import torch

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.memory import Row, job_of, measured, planned, stand_in

TINY = Row(
    "tiny",
    "layers = 2, dim = 512, heads = 8, kv_heads = 2, ffn = 1024, vocab = 8192",
    "shard 8",
    seq_len=1024,
    recompute="full",
)
WORKSPACE = 32 << 20
"""Bytes of cuBLAS's workspace on a GPU of compute capability 9 (torch 2.14, `CUDABlas.cpp`)."""


@pytest.mark.skipif(
    torch.version.cuda is None, reason="this build of PyTorch knows nothing of GPUs"
)
def test_weights_and_moments_are_what_the_plan_says(tmp_path: Path) -> None:
    """Ten seconds, most of them torch and torchtitan, which no other process of the tests has
    imported for a GPU."""
    job = job_of(TINY)
    ((found,),) = measured([job], stand_in(tmp_path))
    assert "wrong" not in found, found["wrong"]
    parts = planned(job)
    rotary = TINY.seq_len * 64 * 8  # a layer's cosines and sines, in fp32
    state = parts["parameters"] + parts["optimizer"] + 2 * rotary + WORKSPACE
    # The allocator rounds small tensors up.
    assert state <= found["state"] < 1.02 * state
    assert found["allocated"] > found["state"] + parts["logits"]
    assert found["allocated"] == sum(found["of"].values())
