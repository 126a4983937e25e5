"""Which rank a process is: what torchrun, Slurm and Kubeflow say, in whole or in part."""

import os

import pytest

from etude.runtime.alone import be_alone
from etude.runtime.errors import RunError
from etude.runtime.launchers.allocation import PORTS, Place, first_host, here

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node-a",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "7",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_NNODES": "3",
    "SLURM_TASKS_PER_NODE": "3,2(x2)",
    "SLURM_JOB_NODELIST": "gpu[007-009]",
}
KUBEFLOW = {
    "PET_NODE_RANK": "1",
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "1",
    "PET_MASTER_ADDR": "run-node-0-0.run",
    "PET_MASTER_PORT": "29400",
}


def without(said: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in said.items() if name not in names}


def test_a_process_on_its_own_is_no_rank() -> None:
    assert here({}) is None
    assert here({"MASTER_ADDR": "left over", "RANK": ""}) is None


def test_torchrun_says_it() -> None:
    place = here(TORCHRUN)
    assert place == Place(5, 1, 8, 4, "node-a", 29500)
    assert place is not None
    assert place.environment() == TORCHRUN


def test_srun_says_it() -> None:
    port = PORTS[4711 % len(PORTS)]
    assert here(SRUN) == Place(5, 0, 7, 2, "gpu007", port, computed=True)
    first = SRUN | {"SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0"}
    assert here(first) == Place(2, 2, 7, 3, "gpu007", port, computed=True)


def test_a_step_on_a_part_of_an_allocation_meets_on_its_own_first_node() -> None:
    step = {"SLURM_STEP_NODELIST": "gpu009", "SLURM_STEP_TASKS_PER_NODE": "7", "SLURM_NODEID": "0"}
    place = here(SRUN | step)
    assert place
    assert (place.address, place.local_world_size) == ("gpu009", 7)


def test_tasks_a_node_may_be_said_once() -> None:
    one = without(SRUN, "SLURM_TASKS_PER_NODE") | {
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NTASKS": "6",
    }
    place = here(one)
    assert place
    assert place.local_world_size == 2


def test_a_script_may_say_where_slurm_tasks_meet() -> None:
    place = here(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "23456"})
    assert place
    assert (place.address, place.port) == ("10.0.0.1", 23456)


def test_jobs_steps_and_attempts_of_slurm_meet_at_different_ports() -> None:
    others = [{"SLURM_JOB_ID": "4712"}, {"SLURM_STEP_ID": "1"}]
    others += [{"SLURM_RESTART_COUNT": str(number)} for number in range(1, 6)]
    places = [here(each) for each in (SRUN, *(SRUN | other for other in others))]
    ports = {place.port for place in places if place}
    assert len(ports) == 1 + len(others)
    assert all(port in PORTS for port in ports)
    assert here(SRUN | {"SLURM_JOB_ID": "67000000"})


def test_kubeflow_says_it_of_a_container_that_is_one_rank() -> None:
    assert here(KUBEFLOW) == Place(1, 0, 2, 1, "run-node-0-0.run", 29400)


def test_torchrun_inside_of_the_others_counts() -> None:
    assert here(SRUN | KUBEFLOW | TORCHRUN) == here(TORCHRUN)


def test_a_batch_script_with_one_task_is_a_process_on_its_own() -> None:
    script = without(SRUN, "SLURM_STEP_ID") | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    assert here(script) is None
    assert here(without(script, "SLURM_NTASKS")) is None


def test_a_shell_of_salloc_on_a_node_is_no_task() -> None:
    shell = SRUN | {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    assert here(shell) is None


WRONG = {
    "a rank of nobody knows how many": ({"RANK": "3"}, "it has RANK=3, but WORLD_SIZE"),
    "a node's number and no local one": (
        without(TORCHRUN, "LOCAL_RANK"),
        "but LOCAL_RANK is missing",
    ),
    "nowhere to meet": (
        without(TORCHRUN, "MASTER_ADDR", "MASTER_PORT"),
        "MASTER_ADDR, MASTER_PORT",
    ),
    "no number": (TORCHRUN | {"RANK": "first"}, "RANK=first, which is not a whole number"),
    "a negative number": (TORCHRUN | {"RANK": "-1"}, "RANK=-1"),
    "a rank too many": (TORCHRUN | {"RANK": "8"}, "rank 8 (from 0) of 8"),
    "a local rank too many": (TORCHRUN | {"LOCAL_RANK": "4"}, "rank 4 (from 0) of 4 on its node"),
    "more on a node than in all": (TORCHRUN | {"LOCAL_WORLD_SIZE": "9"}, "9 ranks on its node"),
    "no port": (TORCHRUN | {"MASTER_PORT": "70000"}, "port 70000"),
    "a step without its size": (without(SRUN, "SLURM_NTASKS"), "SLURM_NTASKS is missing"),
    "a step without nodes": (without(SRUN, "SLURM_JOB_NODELIST"), "SLURM_JOB_NODELIST"),
    "a step without tasks a node": (without(SRUN, "SLURM_TASKS_PER_NODE"), "SLURM_TASKS_PER_NODE"),
    "tasks a node that nobody can read": (
        SRUN | {"SLURM_TASKS_PER_NODE": "two"},
        "SLURM_TASKS_PER_NODE is `two`",
    ),
    "a node beyond the last": (SRUN | {"SLURM_NODEID": "3"}, "node 3 (from 0)"),
    "a list of nodes that is none": (SRUN | {"SLURM_JOB_NODELIST": "[["}, "list of nodes `[[`"),
    "a batch script beside its tasks": (
        without(SRUN, "SLURM_STEP_ID"),
        "the Slurm job 4711 has 7 tasks",
    ),
    "a container of many ranks": (KUBEFLOW | {"PET_NPROC_PER_NODE": "8"}, "PET_NPROC_PER_NODE=8"),
    "a container that counts itself": (
        KUBEFLOW | {"PET_NPROC_PER_NODE": "auto"},
        "PET_NPROC_PER_NODE=auto",
    ),
    "half a container": (without(KUBEFLOW, "PET_MASTER_ADDR"), "PET_MASTER_ADDR is missing"),
    "a number of nodes that changes": (KUBEFLOW | {"PET_NNODES": "1:4"}, "PET_NNODES=1:4"),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "4"}, "mpirun has started 4"),
}


@pytest.mark.parametrize(("said", "message"), WRONG.values(), ids=WRONG)
def test_half_of_it_or_a_contradiction_is_an_error(said: dict[str, str], message: str) -> None:
    with pytest.raises(RunError) as problem:
        here(said)
    assert message in problem.value.message
    assert problem.value.help
    assert problem.value.exit_code == 1


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[007-009,12],login1", "gpu007"),
        ("gpu-[3,5-9].site.org", "gpu-3.site.org"),
        ("rack[1-2]node[04-08]", "rack1node04"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_a_process_that_told_torch_that_it_is_alone_knows_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*TORCHRUN, "ETUDE_ALONE"):
        monkeypatch.setenv(name, "")
    be_alone(23456)
    assert os.environ["MASTER_PORT"] == "23456"
    assert here() is None
    # A job that it submits inherits that, and has a place of its own.
    inherited = {**os.environ, **SRUN}
    assert here(inherited) == here(SRUN)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert here() == Place(5, 1, 8, 4, "node-a", 29500)
