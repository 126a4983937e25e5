"""What the integration tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of the sources `web` and `code`, and the tokenizer, by the roles of a job's inputs."""
    # Not above: only the tests of the engine pay for PyTorch.
    from engine_jobs import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def roles(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of jobs that begin with a language model."""
    from record_jobs import make_roles

    return make_roles(inputs, tmp_path_factory.mktemp("records"))
