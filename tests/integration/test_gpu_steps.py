"""Whole jobs on a GPU that computes nothing (`gpu_stand_in`): whether all of a step's tensors are
on the GPU, and whether the CPU waits for it.

The stand-in is in a process of its own, which sees it from its beginning.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_worker import ALONE, MANY

SOURCE = Path(__file__).parents[1] / "gpu_stand_in.c"
WORKER = Path(__file__).with_name("gpu_worker.py")
CHEAP = ("kto", "grpo gspo")
"""Cases with the most of what is ours: a question before the step, and ratios of answers."""

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None, reason="this build of PyTorch knows nothing of GPUs"
)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, under the name by which PyTorch looks for the driver."""
    made = tmp_path_factory.mktemp("gpu") / "libcuda.so.1"
    name = f"-Wl,-soname,{made.name}"
    subprocess.run(["cc", "-shared", "-fPIC", name, "-o", made, SOURCE], check=True)
    return made


def said(stand_in: Path, worker: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a worker says on the stand-in, line by line."""
    environment = {**os.environ, "LD_PRELOAD": str(stand_in), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(SOURCE.parent)
    done = subprocess.run(
        [sys.executable, worker, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


def told(stand_in: Path, ranks: int, cases: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What became of each case, in one process."""
    return {each["case"]: each for each in said(stand_in, WORKER, str(ranks), *cases)}


def check(found: dict[str, Any]) -> None:
    assert not found["wrong"], found["wrong"]
    assert not found["waits"], found["waits"]


def test_jobs_run_on_a_gpu_and_the_cpu_waits_for_nothing_in_their_steps(stand_in: Path) -> None:
    found = told(stand_in, 1, CHEAP)
    for case in CHEAP:
        check(found[case])


def test_the_benchmark_of_a_training_step_runs_on_a_gpu(stand_in: Path) -> None:
    (seconds,) = said(stand_in, WORKER.with_name("training_step_worker.py"), "2")
    assert set(seconds) == {"etude", "torchtitan"}
    assert all(len(of) == 2 and min(of) > 0 for of in seconds.values())


@pytest.fixture(scope="module")
def every(stand_in: Path) -> dict[str, dict[str, Any]]:
    return told(stand_in, 1, tuple(ALONE)) | told(stand_in, 2, tuple(MANY))


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [*ALONE, *MANY])
def test_every_kind_of_job_runs_on_a_gpu(every: dict[str, dict[str, Any]], case: str) -> None:
    check(every[case])
