"""The batch script of a phase: plain, readable bash.

A job outlives an attempt. Slurm requeues it if a node is lost or it is preempted (`--requeue`).
The script requeues it if the ranks end with 75 or crash, which Slurm would take for the end;
`slurm_end` decides that.
"""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from ...compiler.as_written import counted
from ...compiler.plan.part import options
from ...compiler.plan.plan import Plan
from ...compiler.values import Phase
from ..part import PHASE
from ..run_folder.store import EVENTS, LOGS
from . import parts
from .engine import Piece, Request
from .launcher import WORKER
from .machines import Machines
from .slurm_site import Batch, SlurmSite, minutes

BEFORE_THE_END = 300
"""Seconds before a job's time limit at which its script is told, and the ranks save."""
END = "etude.runtime.launchers.slurm_end"
SCRIPTS = "launch"
"""The subfolder of the run folder with the scripts."""

_BODY = """\

set -uo pipefail
{setup}
export {phase}={number} OMP_WAIT_POLICY=PASSIVE
threads=$((SLURM_CPUS_ON_NODE / {ranks}))
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}}

# Before its time is up, and when it has to give way, Slurm tells this script. The ranks then save
# their state and end with 75. (SIGTERM to srun would kill them.)
told=
tell() {{ told=yes; scancel --signal=USR1 "$SLURM_JOB_ID.0"; }}
trap tell USR1 TERM

before=$({before})
srun {srun} \\
  {command} &
ranks=$!
code=127
while :; do
  told=
  wait "$ranks"
  now=$?
  [ "$now" = 127 ] || code=$now
  [ -n "$told" ] || break
done

# 0: the phase is done, and the next one begins. 75: queue the job again. Anything else: a person is
# needed, and what waits for this job is cancelled.
[ "$code" = 0 ] && exit 0
{end} "$before" "$code"
verdict=$?
if [ "$verdict" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID" && sleep 600
fi
exit "$verdict"
"""


def job_name(plan: Plan, phase: Phase) -> str:
    """Slurm's name for the job of a phase."""
    return f"{_run(plan)}-{phase.name}"


def _run(plan: Plan) -> str:
    run = f"{plan.recipe}-{plan.variant}" if plan.variant else plan.recipe
    return f"etude-{run}"


def script(request: Request, phase: Phase, machines: Machines, site: SlurmSite) -> Piece:
    """The script of a phase."""
    plan = request.plan
    first, *others = phase.jobs
    jobs = f"{first} … {others[-1]}" if others else first
    nodes = counted(machines.nodes, "nodes")
    head = [
        "#!/bin/bash -l" if site.modules else "#!/bin/bash",  # `module` needs a login shell
        f"# {plan.recipe}{options(plan)}, phase {phase.name} on {nodes}: {jobs}",
        "# `etude launch` has written it. It may be started any number of times: it continues.",
    ]
    said = _directives(request, phase, machines, site)
    lines = [*head, *(f"#SBATCH {option}" for option in said)]
    body = _BODY.format(
        setup="\n".join(_setup(site)),
        phase=PHASE,
        number=phase.number,
        ranks=machines.ranks,
        srun=" ".join(_srun(request, phase, site)),
        command=_python(site, _worker(request, phase, site)),
        end=_end(request, phase, site),
        before=_before(request),
    )
    return Piece(f"{phase.name}.sh", "\n".join(lines) + "\n" + body)


def _worker(request: Request, phase: Phase, site: SlurmSite) -> list[str]:
    """The module that a rank runs, and its arguments."""
    folders = [request.address, str(request.root)]
    if phase.number == parts.NUMBER:
        return [parts.MODULE, *folders, str(site.parts)]
    return [WORKER, *folders, phase.device]


def _before(request: Request) -> str:
    """The command that tells where the events of an attempt begin: the size of their file, or of a
    run in a store, whose file is replaced when the run begins, the time."""
    if request.url:
        return "date +%s"
    return f"stat -c %s {shlex.quote(str(request.folder / EVENTS))} 2> /dev/null || echo 0"


def _log(request: Request, name: str) -> str:
    """Where Slurm puts output: with the run's logs. It cannot write to a store, where ranks send
    their logs themselves; what comes before and after them is in the spec's folder."""
    if request.url:
        return _quoted(request.root / f"{_run(request.plan)}-{name}")
    return _quoted(request.folder / LOGS / name)


def _directives(
    request: Request, phase: Phase, machines: Machines, site: SlurmSite
) -> Iterator[str]:
    batch = site.batch(phase.kind)
    yield f"--job-name={job_name(request.plan, phase)}"
    yield f"--nodes={machines.nodes}"
    yield f"--ntasks-per-node={machines.ranks}"
    for option, value in _asked(batch, machines.gpus):
        yield f"--{option}={shlex.quote(value)}"
    if batch.exclusive:
        yield "--exclusive"
    log = phase.name
    if phase.number == parts.NUMBER:
        yield f"--array=1-{site.parts}"
        log += ".%a"
    yield f"--output={_log(request, f'{log}.log')}"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:USR1@{_notice(batch)}"
    yield "--kill-on-invalid-dep=yes"
    yield from batch.options


def _asked(batch: Batch, gpus: int) -> Iterator[tuple[str, str]]:
    """The sbatch options from the site file, with their values."""
    for option, value in (
        ("partition", batch.partition),
        ("account", batch.account),
        ("qos", batch.qos),
        ("time", batch.time),
        ("mem", batch.memory),
        ("cpus-per-task", batch.cpus),
    ):
        if value is not None:
            yield option, str(value)
    if gpus:
        yield "gres", (batch.gres or "gpu:{devices}").replace("{devices}", str(gpus))


def _notice(batch: Batch) -> int:
    """Seconds before the end at which the job is told: at most a fifth of the job's time limit."""
    limit = minutes(batch.time) if batch.time else None
    return BEFORE_THE_END if limit is None else int(min(BEFORE_THE_END, limit * 60 / 5))


def _setup(site: SlurmSite) -> Iterator[str]:
    if site.modules:
        yield f"module load {shlex.join(site.modules)}"
    yield from site.setup
    for name, value in site.environment.items():
        yield f"export {name}={shlex.quote(value)}"


def _srun(request: Request, phase: Phase, site: SlurmSite) -> Iterator[str]:
    yield "--kill-on-bad-exit=1"
    if not request.url:
        yield "--open-mode=append"
        each = "%a" if phase.number == parts.NUMBER else "%t"  # one log per part
        yield f"--output={_log(request, f'{phase.name}.rank-{each}.log')}"
    if (cpus := site.batch(phase.kind).cpus) is not None:
        yield f"--cpus-per-task={cpus}"  # srun does not inherit it from the job
    box = site.container
    if box and box.runs_with == "pyxis":
        yield f"--container-image={shlex.quote(box.image)}"
        mounts = [*box.mounts, *([] if request.url else [str(request.folder)])]
        yield "--container-mounts=" + shlex.quote(",".join(f"{each}:{each}" for each in mounts))


def _python(site: SlurmSite, module: list[str]) -> str:
    """The command that runs a module of etude on a node."""
    box = site.container
    command = [site.python or ("python3" if box else sys.executable), "-m", *module]
    if box and box.runs_with == "apptainer":
        binds = [option for mount in box.mounts for option in ("--bind", mount)]
        command = ["apptainer", "exec", "--nv", *binds, box.image, *command]
    return shlex.join(command)


def _end(request: Request, phase: Phase, site: SlurmSite) -> str:
    """The command that decides what happens to the job; its last argument is srun's exit code."""
    module = [END, request.address, str(phase.number), str(site.attempts)]
    command = _python(site, module)
    if site.container and site.container.runs_with == "pyxis":
        box = " ".join(_srun(request, phase, site))
        return f'srun --nodes=1 --ntasks=1 --overlap --nodelist="$SLURMD_NODENAME" {box} {command}'
    return command


def _quoted(path: Path) -> str:
    """A path in a directive, with % escaped: Slurm expands it as a pattern."""
    parts = path.parent.as_posix().replace("%", "%%"), path.name
    return shlex.quote("/".join(parts))
