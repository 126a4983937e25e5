"""Steps of placed jobs on a GPU whose kernels do nothing (`benchmarks.memory`): whether they are
taken at all, and whether the allocator has given what weights and moments need.

The other stand-in (`gpu_stand_in`) has no exchange of experts, no pipelines and no Muon.
"""

import sys
from pathlib import Path
from typing import Any

import engine_jobs  # noqa: F401 (before torchtitan is imported: on CPUs)
import pytest
import torch

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import memory
from benchmarks.memory import DISTILL, GRPO, MUON, PRM, REWARD, Row

SMALL = (
    "family = qwen3, layers = 6, dim = 64, heads = 4, kv_heads = 2, head_dim = 16, ffn = 128, "
    "vocab = 512"
)
EXPERTS = f"{SMALL}, experts = {{ count = 8, active = 2, ffn = 64 }}"
LATENT = (
    "family = deepseek_v3, layers = 4, dim = 64, heads = 4, ffn = 128, vocab = 512, "
    "latent = { queries = 32, keys = 32, plain = 16, rotary = 8, values = 16 }, "
    "experts = { count = 8, active = 2, shared = 1, dense = 1, ffn = 64 }"
)
WORKSPACE = 64 << 20
"""Bytes that matrix products of CUDA keep for themselves, and what is small beside them."""


def small(name: str, model: str, parallel: str, also: str = "", **stage: Any) -> Row:
    return Row(name, model, parallel, seq_len=256, recompute="full", also=also, **stage)


ROWS = (
    small("Muon", SMALL, "shard 8", MUON),
    small("pipeline", SMALL, "shard 2, tensor 2, pipeline 2, micro_batch 4"),
    small("interleaved", SMALL, "shard 4, pipeline 2, interleave 2, micro_batch 2"),
    small("zero bubble", SMALL, "shard 4, pipeline 2, micro_batch 2, schedule zero_bubble_v"),
    small("experts", EXPERTS, "shard 8, expert 4"),
    small("experts, pipeline", EXPERTS, "shard 4, expert 4, pipeline 2, micro_batch 2"),
    small("latent experts", LATENT, "shard 8, expert 8"),
    small("latent experts, tensor", LATENT, "shard 4, tensor 2, expert 4"),
    small("policy", SMALL, "shard 4, tensor 2", stage=GRPO),
    small("reward", SMALL, "shard 8", stage=REWARD),
    small("process reward", SMALL, "shard 8", stage=PRM),
    small("student", SMALL, "shard 8", stage=DISTILL),
)

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None, reason="this build of PyTorch knows nothing of GPUs"
)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory.stand_in(tmp_path_factory.mktemp("gpu"))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.exhaustive] * (number > 0))
        for number, row in enumerate(ROWS)
    ],
    ids=lambda row: row.name,
)
def test_a_step_is_taken_on_a_gpu(row: Row, stand_in: Path) -> None:
    job = memory.job_of(row)
    planned = memory.planned(job)
    found = next(memory.measured([job], stand_in))
    assert len(found) == len(memory.ranks(job))
    for rank in found:
        assert "wrong" not in rank, rank["wrong"]
        assert 0 < rank["state"] <= rank["allocated"]
    most = max(rank["state"] for rank in found)
    state = planned["parameters"] + planned["optimizer"]
    assert state * 0.9 <= most <= state * 1.5 + WORKSPACE
