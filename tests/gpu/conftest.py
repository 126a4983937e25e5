"""Tests on a GPU: `make gpu`. ETUDE_GPU_TESTS=cpu has the same tests run on the CPU, where what is
compared with the CPU is the CPU."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
ON_CPU = os.environ.get("ETUDE_GPU_TESTS") == "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is here where there is no GPU, which `make gpu` turns into a failure."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if not here or ON_CPU:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("ETUDE_NEEDS_GPU"):
        pytest.exit("PyTorch sees no GPU on this machine; ETUDE_GPU_TESTS=cpu runs without", 1)
    for item in here:
        item.add_marker(pytest.mark.skip(reason="PyTorch sees no GPU on this machine"))


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Documents, dialogs and preferences, by the roles of a job's inputs."""
    from engine_jobs import make_inputs
    from record_jobs import make_records

    folder = tmp_path_factory.mktemp("inputs")
    return make_inputs(folder) | make_records(folder)
