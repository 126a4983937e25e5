"""Which rank this process is, according to its environment.

- torchrun, and whatever sets the same variables: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
  MASTER_ADDR, MASTER_PORT;
- srun with one task per rank: SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NODEID, with the
  nodes of the step and the tasks of each;
- Kubeflow with one rank per container: PET_NODE_RANK, PET_NNODES, PET_NPROC_PER_NODE,
  PET_MASTER_ADDR, PET_MASTER_PORT.

The first match counts: torchrun may run inside the other two. An incomplete set of variables is an
error: a rank that thinks it is alone would do the work of all.
"""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..alone import is_alone
from ..errors import RunError

PORTS = range(12_000, 30_000)
"""The range of a Slurm job's port: below the ports that systems give to clients."""
_TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MASTER = ("MASTER_ADDR", "MASTER_PORT")
_PET = ("PET_NODE_RANK", "PET_NNODES", "PET_NPROC_PER_NODE", "PET_MASTER_ADDR", "PET_MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID")
_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_NO_STEP = 0xFFFFFFF0
"""Step numbers from here on denote shells and scripts, not tasks of srun."""


@dataclass(frozen=True)
class Place:
    """One rank of a gang, and where the gang meets.

    Attributes:
        local_rank, local_world_size: within this node.
        address, port: where rank 0 listens.
        computed: whether the port is derived from the numbers of the job and of its start.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    address: str
    port: int
    computed: bool = False

    def environment(self) -> dict[str, str]:
        """The variables that tell torch all this."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def here(environ: Mapping[str, str] = os.environ) -> Place | None:
    """The rank of this process; None if nothing in the environment indicates other ranks.

    Raises: RunError: the environment is incomplete or contradicts itself.
    """
    said = {name: value for name, value in environ.items() if value}
    if is_alone(said):  # set by a lone process that started this one; its port is not ours
        said = {name: value for name, value in said.items() if name not in (*_TORCH, *_MASTER)}
    if any(name in said for name in _TORCH):
        return _torch(said)
    if _is_task(said):
        return _slurm(said)
    if "PET_NODE_RANK" in said or "PET_NNODES" in said:
        return _kubeflow(said)
    _require_one_process(said)
    return None


def forget() -> None:
    """Removes the variables that tell torch about ranks and torchrun's options, so that a process
    or gang started from here is independent."""
    for name in [*_TORCH, *_MASTER, *(name for name in os.environ if name.startswith("PET_"))]:
        os.environ.pop(name, None)


def _torch(said: Mapping[str, str]) -> Place:
    names = (*_TORCH, *_MASTER)
    _require(
        said,
        names,
        "start every rank with torchrun, which sets them, or set them all (on a node with one "
        "process LOCAL_RANK is 0 and LOCAL_WORLD_SIZE is 1)",
    )
    return _checked(
        Place(
            _number(said, "RANK"),
            _number(said, "LOCAL_RANK"),
            _number(said, "WORLD_SIZE"),
            _number(said, "LOCAL_WORLD_SIZE"),
            said["MASTER_ADDR"],
            _number(said, "MASTER_PORT"),
        ),
        names,
    )


def _is_task(said: Mapping[str, str]) -> bool:
    """Whether srun started this process; a batch script has no step number."""
    step = said.get("SLURM_STEP_ID", "")
    return "SLURM_PROCID" in said and step.isdecimal() and int(step) < _NO_STEP


def _slurm(said: Mapping[str, str]) -> Place:
    job = said.get("SLURM_JOB_ID", "")
    names = ("SLURM_JOB_ID", *_SLURM)
    _require(said, names, "start every rank with srun, which sets them")
    tasks = _tasks_of_nodes(said)
    node = _number(said, "SLURM_NODEID")
    if node >= len(tasks):
        raise RunError(
            f"Slurm says that this is node {node} (from 0) of the job {job}, but gives the tasks "
            f"of only {len(tasks)}",
            "start the ranks with srun directly, without changing its variables",
        )
    address = said.get("MASTER_ADDR") or _known(first_host(_nodes(said)))
    place = Place(
        _number(said, "SLURM_PROCID"),
        _number(said, "SLURM_LOCALID"),
        _number(said, "SLURM_NTASKS"),
        tasks[node],
        address,
        _number(said, "MASTER_PORT") if "MASTER_PORT" in said else _slurm_port(said),
        computed="MASTER_PORT" not in said,
    )
    return _checked(place, names)


def _slurm_port(said: Mapping[str, str]) -> int:
    """The port of a step. It differs for each job, each step, and each time Slurm restarts a job,
    since something else may use the previous port."""
    job, step = _number(said, "SLURM_JOB_ID"), _number(said, "SLURM_STEP_ID")
    again = _number(said, "SLURM_RESTART_COUNT") if "SLURM_RESTART_COUNT" in said else 0
    return PORTS[(job + 997 * step + 4_099 * again) % len(PORTS)]


def _nodes(said: Mapping[str, str]) -> str:
    """The list of the step's nodes; the first one has rank 0."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if name in said:
            return said[name]
    raise RunError(
        "Slurm has started this process but does not say on which nodes: SLURM_JOB_NODELIST is "
        "missing",
        "start the ranks with srun, or set MASTER_ADDR to the host of rank 0",
    )


def _tasks_of_nodes(said: Mapping[str, str]) -> list[int]:
    """The number of tasks on each node, from Slurm's `2(x3),1`."""
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        if name not in said:
            continue
        tasks: list[int] = []
        for part in said[name].split(","):
            found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
            if found is None:
                raise RunError(
                    f"{name} is `{said[name]}`, which does not give numbers of tasks",
                    "start the ranks with srun, without changing its variables",
                )
            tasks += [int(found[1])] * int(found[2] or 1)
        return tasks
    nodes = _number(said, "SLURM_NNODES") if "SLURM_NNODES" in said else 1
    if "SLURM_NTASKS_PER_NODE" in said:
        return [_number(said, "SLURM_NTASKS_PER_NODE")] * nodes
    raise RunError(
        "Slurm has started this process but does not say how many run on a node: "
        "SLURM_TASKS_PER_NODE is missing",
        "start the ranks with srun, which sets it",
    )


def first_host(nodes: str) -> str:
    """The first host of a Slurm host list: `gpu[007-009,12],login1` begins with `gpu007`.

    Raises: RunError: it is not a host list.
    """
    found = re.match(r"(?:[^\[\],]|\[[^\]]+\])+", nodes)
    host = re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0]) if found else ""
    if not re.fullmatch(r"[\w.:-]+", host):
        raise RunError(
            f"Slurm's list of nodes `{nodes}` cannot be read",
            "set MASTER_ADDR to the host of rank 0",
        )
    return host


def _known(host: str) -> str:
    """The host, or the address at which Slurm reaches it if the name cannot be resolved."""
    try:
        socket.getaddrinfo(host, None)
        return host
    except OSError:
        pass
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "--oneliner", "show", "node", host]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        if found := re.search(r"\bNodeAddr=(\S+)", shown):
            return found[1]
    return host


def _kubeflow(said: Mapping[str, str]) -> Place:
    _require(said, _PET, "start every rank with torchrun, which reads them")
    processes = said["PET_NPROC_PER_NODE"]
    if processes != "1":
        raise RunError(
            f"this container is a node of several ranks (PET_NPROC_PER_NODE={processes}), but "
            "this process is not one of them",
            "start it with torchrun, which reads the variables PET_…: "
            "torchrun --no-python etude run SPEC",
        )
    rank = _number(said, "PET_NODE_RANK")
    ranks, port = _number(said, "PET_NNODES"), _number(said, "PET_MASTER_PORT")
    return _checked(Place(rank, 0, ranks, 1, said["PET_MASTER_ADDR"], port), _PET)


def _require_one_process(said: Mapping[str, str]) -> None:
    """Raises: RunError: there are other processes, and nothing says which one this is."""
    tasks = said.get("SLURM_NTASKS", "1")
    if "SLURM_JOB_ID" in said and tasks != "1":
        raise RunError(
            f"the Slurm job {said['SLURM_JOB_ID']} has {tasks} tasks, but this process is not "
            "one of them",
            "start it on all of them with srun: srun etude run SPEC",
        )
    for name in _MPI:
        if said.get(name, "1") != "1":
            raise RunError(
                f"mpirun has started {said[name]} of these processes ({name}), but does not say "
                "where they meet",
                "start them with torchrun or srun, or set " + ", ".join((*_TORCH, *_MASTER)),
            )


def _require(said: Mapping[str, str], names: tuple[str, ...], help: str) -> None:
    missing = [name for name in names if name not in said]
    if missing:
        there = ", ".join(f"{name}={said[name]}" for name in names if name in said)
        are = "is" if len(missing) == 1 else "are"
        raise RunError(
            f"the environment says only in part which rank this process is: it has {there}, but "
            f"{', '.join(missing)} {are} missing",
            help,
        )


def _number(said: Mapping[str, str], name: str) -> int:
    if not said[name].isdecimal():
        raise RunError(
            f"the environment has {name}={said[name]}, which is not a whole number",
            f"correct {name}, or start the ranks with torchrun or srun, which set it",
        )
    return int(said[name])


def _checked(place: Place, names: tuple[str, ...]) -> Place:
    """Raises: RunError: the numbers contradict each other."""
    wrong = ""
    if place.rank >= place.world_size:
        wrong = f"rank {place.rank} (from 0) of {place.world_size}"
    elif place.local_rank >= place.local_world_size:
        wrong = f"rank {place.local_rank} (from 0) of {place.local_world_size} on its node"
    elif place.local_world_size > place.world_size:
        wrong = (
            f"one of {place.local_world_size} ranks on its node, and of {place.world_size} in all"
        )
    elif not 0 < place.port < 65536:
        wrong = f"to meet the others at port {place.port}"
    if wrong:
        raise RunError(
            f"the environment says that this process is {wrong}",
            f"correct {', '.join(names)}, or start the ranks with torchrun or srun, which set them",
        )
    return place
