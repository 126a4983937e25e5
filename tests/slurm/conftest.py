"""Virtual clusters for the tests of a module, and what tests do with them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from slurm_runs import Runs
from virtual import cluster


@pytest.fixture(scope="module")
def clusters() -> Iterator[Callable[[int], Runs]]:
    """Starts clusters of so many nodes, each once."""
    with ExitStack() as stack:
        started: dict[int, Runs] = {}

        def start(nodes: int) -> Runs:
            if nodes not in started:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp")
                )
                started[nodes] = Runs(stack.enter_context(cluster(Path(folder), nodes)))
            return started[nodes]

        yield start
