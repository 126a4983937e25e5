"""A Slurm cluster of virtual nodes on the loopback interface of this machine, for tests.

Its daemons are Debian's, unmodified, and run as the user who runs the tests: munge with a key of
its own, one slurmctld, one slurmd a node. All their files lie in one folder, and all processes are
gone when the context ends, however it ends.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
CONFIGURATION = """
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
SlurmctldPort={controller}
FirstJobId={controller}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=20000
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=120 State=UP
PartitionName=short Nodes=ALL MaxTime=5 State=UP
"""
"""Traps: a node's `NodeHostname` is the machine's, with a port of its own; control groups are not
there in a container (`linuxproc`, `task/none`); `config_overrides` lets a node have the CPUs that
are said; a job that is queued again waits until its credentials have expired, two minutes unless
`cred_expire` says otherwise; `MinJobAge` keeps ended jobs in `squeue` long enough to be seen."""


def missing() -> str:
    """What this machine lacks for a virtual cluster; empty where it has all."""
    lacking = [name for name in DAEMONS if not _found(name)]
    return f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge" * bool(
        lacking
    )


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: of its files; logs of the daemons are `slurmctld.log` and `NODE.log`.
        environment: for the commands of its users.
    """

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Starts a daemon, which ends with this process."""
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [_found(command[0]) or command[0], *command[1:]],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def node(self, name: str) -> None:
        """Starts the daemon of a node."""
        self.start(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """A node dies: its daemon and all that runs on it, without a word to anybody."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()
        for process in self.processes():
            if process.environment.get("SLURMD_NODENAME") == name or (
                process.name == "slurmstepd" and f"/{name}.log" in process.opened
            ):
                _kill(process.pid)

    def run(self, *command: str, **options) -> str:
        """What a command of a user prints."""
        done = subprocess.run(
            command,
            **{
                "env": self.environment,
                "capture_output": True,
                "text": True,
                "timeout": 120,
                **options,
            },
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """Job → its state, of all jobs that Slurm still knows; of an array that of a task which is
        not complete, if there is one."""
        lines = self.run("squeue", "--all", "--states=all", "--noheader", "--format=%F %T")
        found: dict[str, str] = {}
        for job, state in map(str.split, lines.splitlines()):
            if found.get(job, "COMPLETED") == "COMPLETED":
                found[job] = state
        return found

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 300) -> None:
        """Waits until a condition holds.

        Raises: AssertionError: it never does; with the ends of the logs.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: never\n{self.story()}"
            time.sleep(0.2)

    def story(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(
            f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs
        )

    def close(self) -> None:
        """Ends all processes."""
        with contextlib.suppress(Exception):
            subprocess.run(
                ["scancel", "--signal=KILL", "--full", *self.states()],
                env=self.environment,
                timeout=10,
                capture_output=True,
            )
        for name in reversed(list(self.daemons)):
            _kill(self.daemons.pop(name).pid)
        for process in self.processes():
            _kill(process.pid)

    def processes(self) -> Iterator["Process"]:
        """What runs under this cluster, daemons, steps and their tasks alike."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                found = _process(entry)
                if found and found.environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    yield found


@dataclass(frozen=True)
class Process:
    """A process of the cluster.

    Attributes:
        command: its arguments.
        opened: the files that it has open.
    """

    pid: int
    name: str
    environment: Mapping[str, str]
    command: str
    opened: str


def _process(entry: Path) -> Process | None:
    try:
        name = (entry / "comm").read_text().strip()
        pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        files = []
        for link in (entry / "fd").iterdir():
            with contextlib.suppress(OSError):
                files.append(os.readlink(link))
    except OSError:  # it has ended, or is another user's
        return None
    return Process(int(entry.name), name, environment, command, " ".join(files))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextlib.contextmanager
def cluster(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    """A running cluster with the nodes n1, n2, …, of one CPU each.

    Args:
        folder: an empty one for its files; its path has to be short, since it holds a socket.
    """
    controller, *ports = _ports(nodes + 1)
    host = socket.gethostname().partition(".")[0]
    lines = [
        f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 "
        "RealMemory=2000 State=UNKNOWN"
        for number, port in enumerate(ports, 1)
    ]
    text = CONFIGURATION.format(
        host=host,
        user=getpass.getuser(),
        folder=folder,
        controller=controller,
        nodes="\n".join(lines),
    )
    folder.chmod(0o755)  # munge insists
    (folder / "slurm.conf").write_text(text)
    (folder / "state").mkdir()
    (folder / "munge").mkdir(mode=0o700)
    key = folder / "munge" / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM", "SBATCH"))
    }
    running = Cluster(folder, environment | {"SLURM_CONF": str(folder / "slurm.conf")})
    reaper = _reaper(running)
    try:
        running.start(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munge/munged.pid",
            f"--log-file={folder}/munge/munged.log",
            f"--seed-file={folder}/munge/munged.seed",
        )
        running.wait((folder / "munge.socket").exists, "munge", 30)
        running.start("slurmctld", "slurmctld", "-D")
        for number in range(1, nodes + 1):
            running.node(f"n{number}")
        running.wait(lambda: _idle(running) == nodes, "all nodes idle", 60)
        yield running
    finally:
        running.close()
        reaper.terminate()
        reaper.wait()


def _reaper(running: Cluster) -> subprocess.Popen:
    """A process that ends the cluster where this one is killed: it sees its input end."""
    return subprocess.Popen(
        [sys.executable, __file__, "--reap", running.environment["SLURM_CONF"]],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _reap(configuration: str) -> None:
    sys.stdin.buffer.read()
    folder = Path(configuration).parent
    if (folder / "munge.socket").exists():
        Cluster(folder, {**os.environ, "SLURM_CONF": configuration}).close()
        shutil.rmtree(folder, ignore_errors=True)


def _idle(running: Cluster) -> int:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"],
        env=running.environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.split().count("idle")


if __name__ == "__main__" and sys.argv[1] == "--reap":
    _reap(sys.argv[2])
elif __name__ == "__main__":  # a cluster to look around in: python tests/slurm/virtual.py FOLDER
    with cluster(Path(sys.argv[1])) as started:
        print(f"export SLURM_CONF={started.environment['SLURM_CONF']}", flush=True)
        signal.pause()
