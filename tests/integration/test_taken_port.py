"""A port at which rank 0 cannot listen: whether a new start helps depends on who has chosen it."""

import os
import socket

import pytest

from etude.runtime import ranks
from etude.runtime.errors import Interrupted, RunError
from etude.runtime.launchers.allocation import Place, here

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_TASKS_PER_NODE": "2",
}


def joined(place: Place | None, monkeypatch: pytest.MonkeyPatch) -> RunError:
    """What is said where the port of a place is taken."""
    assert place
    for name in place.environment():
        monkeypatch.setenv(name, "")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = Place(**{**vars(place), "port": other.getsockname()[1]})
        with pytest.raises(
            RunError, match=r"cannot listen at 127.0.0.1:.*: the port is taken"
        ) as at:
            ranks._join(taken)
    assert os.environ["MASTER_PORT"] == str(taken.port)
    return at.value


def test_slurm_starts_the_job_again_and_it_takes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = joined(here(SRUN), monkeypatch)
    assert isinstance(problem, Interrupted)
    assert problem.exit_code == 75
    first, second = here(SRUN), here(SRUN | {"SLURM_RESTART_COUNT": "1"})
    assert first
    assert second
    assert first.port != second.port


def test_a_port_that_somebody_has_said_has_to_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = joined(here(SRUN | {"MASTER_PORT": "23456"}), monkeypatch)
    assert problem.exit_code == 1
    assert problem.help == "set MASTER_PORT to a free one"
