"""The benchmark of a training step on the stand-in of a GPU (`gpu_stand_in`), with a tiny model and
nothing compiled; prints the seconds of each side's steps, which say nothing there.

python training_step_worker.py ROUNDS
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gpu_stand_in import Device, InOrder, be_a_rank, without_compilers

# The benchmarks are no part of what is installed.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import training_step
from benchmarks.memory_worker import put, without_weights

SHAPE = training_step.Shape(1, 64, 2, 1, ffn=64, vocab=512, rows=1, seq_len=256)
_planned = training_step.job_of


def job_of(*given: Any) -> Any:
    """The job as it is planned, without compiled functions."""
    job = _planned(*given)
    return job.model_copy(update={"torchtitan": {**job.torchtitan, "compile": {"enable": False}}})


def main() -> None:
    torch.set_num_threads(1)
    be_a_rank(1)
    training_step.job_of = job_of
    from etude.runtime.engine import device

    device.prepare(training_step.GPU)
    without_compilers()
    from etude.runtime.engine.weights import initial

    initial.ThreadPoolExecutor = InOrder  # type: ignore[assignment]
    from torchtitan.protocols import BaseModel

    # What torchtitan draws asks for numbers, which fake tensors do not have.
    put(BaseModel, init_weights=without_weights)
    with tempfile.TemporaryDirectory() as folder, Device():
        found = training_step.measure(Path(folder), SHAPE, int(sys.argv[1]), 1, "cuda")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
