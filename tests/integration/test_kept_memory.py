"""What tensors free on a CPU is there for the next ones."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from torch.nn.functional import linear, silu
from etude.runtime.engine.device import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
torch.set_num_threads(1)
x = torch.randn(4096, 32)
weights = [torch.randn(*shape, requires_grad=True) for shape in ((512, 32), (512, 32), (32, 512))]
def step():
    h = x
    for _ in range(2):
        first, second, last = weights
        h = h + linear(silu(linear(h, first)) * linear(h, second), last)
    h.square().mean().backward()
    for weight in weights:
        weight.grad = None
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_steps_do_not_get_their_memory_from_the_system_again() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    given_back, kept = faults("given back"), faults("kept")
    assert kept < given_back / 4, (kept, given_back)
