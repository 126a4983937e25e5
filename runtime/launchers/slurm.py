"""Slurm: a batch job for each phase, or for phases on the same machines, that waits for the one
before."""

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ...compiler.as_written import counted
from ...compiler.plan.part import options
from ...compiler.values import Phase
from ..disk import disk, write
from ..errors import RunError
from ..run_folder.store import LOGS, Store
from . import record, sites
from .engine import Piece, Request, Strand
from .machines import Allocation, allocations
from .parts import parts_phase
from .record import Launch
from .remaining import left
from .slurm_queue import states
from .slurm_script import SCRIPTS, script
from .slurm_site import Batch, SlurmSite, minutes


class Slurm:
    """The engine."""

    shares_folder = True

    def folder(self, name: str, site: Path | None) -> Path:
        """The run folder of a recipe: on the site's scratch, or in `runs` here.

        Raises: RunError: the site file is wrong.
        """
        scratch = _site(site).scratch
        return (Path(scratch).expanduser() if scratch else Path("runs")) / name

    def pieces(self, request: Request) -> list[Piece]:
        """The scripts of the remaining phases, in the order in which they are queued.

        Raises: RunError
        """
        return [piece for _, piece in _scripts(request, _site(request.site))]

    def ready(self, request: Request) -> None:
        """Checks that this is a login node and that the run is not queued yet.

        Raises: RunError
        """
        _require_command("sbatch", "squeue", "scancel")
        _require_not_queued(request.folder)

    def submit(self, request: Request) -> list[str]:
        """Writes the scripts into the run folder and queues them.

        Raises: RunError, Stopped
        """
        return self.submit_all([Strand("", request)])

    def submit_all(self, strands: Sequence[Strand]) -> list[str]:
        """Writes the scripts of all runs into their folders, and queues them once Slurm takes every
        one.

        Raises: RunError, Stopped
        """
        found = []
        for each in strands:
            site = _site(each.request.site)
            if scripts := _scripts(each.request, site):
                _require_partitions([of for of, _ in scripts], each.request, site)
                found.append((each, [of.name for of, _ in scripts], [p for _, p in scripts]))
        if not found:
            addresses = ", ".join(each.request.address for each in strands)
            return [f"nothing is left to do: {addresses} has all results"]
        written = [(each, names, _written(each.request, made)) for each, names, made in found]
        for _, _, files in written:
            for file in files:
                _sbatch("--test-only", str(file))
        return _queued_all(written)


def _queued_all(written: Sequence[tuple[Strand, list[str], list[Path]]]) -> list[str]:
    """Queues the scripts of runs, with the names of their phases, and records each launch; returns
    a line for each job.

    Raises: RunError: one was rejected; all are cancelled.
    """
    last: dict[str, str] = {}
    lines, queued = [], []
    try:
        for each, names, files in written:
            jobs = _queued(files, [last[name] for name in each.after if name in last])
            queued += jobs
            last[each.name] = jobs[-1]
            part = options(each.request.plan).strip()
            launch = Launch("slurm", {"jobs": jobs, "phases": names, "part": part})
            record.save(each.request.folder, launch)
            place = f"{each.name}/" if each.name else ""
            lines += [f"{job}  {place}{name}" for job, name in zip(jobs, names, strict=True)]
    except BaseException:
        _cancel(queued)
        raise
    return lines


def _site(path: Path | None) -> SlurmSite:
    return sites.read(path, "slurm", SlurmSite)


def _scripts(request: Request, site: SlurmSite) -> list[tuple[Allocation, Piece]]:
    plan = request.plan
    phases = left(plan, request.folder)
    if site.parts > 1 and (parts := parts_phase(plan, phases)):
        phases.insert(0, parts)

    def alike(one: Phase, other: Phase) -> bool:
        return site.batch(one.kind) == site.batch(other.kind)

    found = allocations(plan, phases, site.gpus_per_node, alike)
    return [(each, script(request, each, site)) for each in found]


def _written(request: Request, pieces: Sequence[Piece]) -> list[Path]:
    """The scripts and the plan, in the run folder.

    Raises: Stopped: they cannot be written.
    """
    files = []
    store = Store(request.folder)
    store.create()
    with disk(request.folder):
        for name in (SCRIPTS, LOGS):
            (request.folder / name).mkdir(exist_ok=True)
        write(request.folder / "plan.json", request.plan.to_json() + "\n")
        for piece in pieces:
            path = request.folder / SCRIPTS / piece.name
            write(path, piece.text)
            files.append(path)
    if store.remote is not None:
        for path in (request.folder / "plan.json", *files):
            store.remote.record(path)
    return files


def _queued(files: Sequence[Path], before: Sequence[str]) -> list[str]:
    """Queues scripts so that each job waits for the one before; returns the job ids.

    Args:
        before: the jobs that the first one waits for.

    Raises: RunError: one was rejected; those before it are cancelled.
    """
    jobs: list[str] = []
    try:
        for file in files:
            waits = jobs[-1:] or before
            after = [f"--dependency=afterok:{':'.join(waits)}"] if waits else []
            said = _sbatch("--parsable", *after, str(file))
            jobs.append(said.strip().splitlines()[-1].partition(";")[0])
    except BaseException:
        _cancel(jobs)
        raise
    return jobs


def _sbatch(*arguments: str) -> str:
    """Raises: RunError: Slurm rejects the job; quotes Slurm's message."""
    # A job submitted from within another must not inherit its variables.
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "SBATCH_"))}
    keep = {n: v for n, v in os.environ.items() if n in ("SLURM_CONF", "SLURM_CLUSTERS")}
    done = subprocess.run(
        ["sbatch", *arguments],
        capture_output=True,
        text=True,
        env=environment | keep,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = " ".join(done.stderr.replace("sbatch: error: ", "").split())
        raise RunError(
            f"Slurm rejects {arguments[-1]}: {said or 'it does not say why'}",
            "correct the site file, or the cluster in the spec, and launch again",
        )
    return done.stdout


def _cancel(jobs: Sequence[str]) -> None:
    if jobs:
        with contextlib.suppress(OSError):
            subprocess.run(["scancel", *jobs], capture_output=True)


def _asked(*command: str) -> list[str]:
    """The lines that a Slurm command prints.

    Raises: RunError: Slurm does not answer.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise RunError(
            f"Slurm does not answer: {command[0]} took longer than a minute",
            "try again; `scontrol ping` shows whether its controller is up",
        ) from None
    if done.returncode:
        raise RunError(
            f"Slurm does not answer: {' '.join(done.stderr.split())}",
            "try again; `scontrol ping` shows whether its controller is up",
        )
    return done.stdout.splitlines()


def _require_command(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            raise RunError(
                f"this machine has no `{name}`, so it is not a Slurm login node",
                "launch from a login node; `--dry-run` shows the scripts anywhere",
            )


def _require_not_queued(folder: Path) -> None:
    """Raises: RunError: the run is already queued or running."""
    launch = record.load(folder)
    if launch is None:
        return
    name = Store(folder).name
    if launch.engine != "slurm":
        raise RunError(
            f"{name} was launched on {launch.engine}",
            f"if it no longer runs there, remove {name}/{record.LAUNCH}",
        )
    if jobs := states(launch.queued):
        shown = ", ".join(f"{job} ({state.lower()})" for job, state in jobs.items())
        # Its jobs read the folder's plan when they start, so the plan must not change meanwhile.
        part = f" ({launch.queued['part']})" if launch.queued.get("part") else ""
        numbers = f"Slurm's {counted(len(jobs), 'jobs')} {shown}"
        raise RunError(
            f"the run in {name}{part} is queued already: {numbers}",
            f"wait for it (etude status {name}), or cancel it first: etude cancel {name}",
        )


@dataclass(frozen=True)
class Partition:
    """A partition of the cluster.

    Attributes:
        limit: the time limit of jobs, in minutes.
        nodes: the number of nodes.
        default: whether jobs without a partition go there.
    """

    name: str
    limit: float
    nodes: int
    default: bool


def partitions() -> dict[str, Partition]:
    """The partitions that this user may see, by name.

    Raises: RunError: Slurm does not answer.
    """
    found: dict[str, Partition] = {}
    for line in _asked("sinfo", "--noheader", "--summarize", "--format=%P %l %D"):
        name, limit, nodes = line.split()
        plain = name.rstrip("*")
        found[plain] = Partition(
            plain, minutes(limit) or float("inf"), int(nodes), name.endswith("*")
        )
    return found


def _require_partitions(left: Sequence[Allocation], request: Request, site: SlurmSite) -> None:
    """Raises: RunError: the cluster lacks something in the site file; named as in that file."""
    known = partitions()
    where = request.site or "the site file"
    batches = [site.batch(each.phases[0].kind) for each in left]
    for each, batch in zip(left, batches, strict=True):
        _require_partition(each, batch, known)
    accounts = _accounts()
    for account in {batch.account for batch in batches} - {None}:
        if accounts and str(account).lower() not in accounts:  # Slurm keeps them in lower case
            raise RunError(
                f"{where}: Slurm has no account `{account}` for {getpass.getuser()}",
                _meant(str(account), sorted(accounts)),
            )


def _require_partition(of: Allocation, batch: Batch, known: dict[str, Partition]) -> None:
    """Raises: RunError: a phase cannot run in its partition."""
    if batch.partition is None:
        found = next((each for each in known.values() if each.default), None)
        if found is None:
            raise RunError(
                "Slurm has no default partition, and the site file sets none",
                "write `partition = ` below [slurm]; there are " + ", ".join(known),
            )
    else:
        found = known.get(batch.partition)
    if found is None:
        raise RunError(
            f"Slurm has no partition `{batch.partition}`", _meant(str(batch.partition), list(known))
        )
    if of.machines.nodes > found.nodes:
        raise RunError(
            f"the phase {of.name} needs {of.machines.nodes} nodes, but the partition "
            f"`{found.name}` has {found.nodes}",
            "name another partition in the site file, or plan for a smaller cluster",
        )
    asked = minutes(batch.time) if batch.time else None
    if asked is not None and asked > found.limit:
        raise RunError(
            f'`time = "{batch.time}"` is more than the {found.limit:g} minutes that the '
            f"partition `{found.name}` allows",
            "write a shorter time: a run saves its state before its time is up, and is requeued",
        )


def _accounts() -> set[str]:
    """The accounts of this user; empty if Slurm has no accounting."""
    if shutil.which("sacctmgr") is None:
        return set()
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc"]
    query = [f"user={getpass.getuser()}", "format=account"]
    try:
        done = subprocess.run([*command, *query], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return set(done.stdout.split()) if done.returncode == 0 else set()


def _meant(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
