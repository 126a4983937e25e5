"""The batch script of a phase, or of several on the same machines: plain, readable bash.

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
from .machines import Allocation
from .remaining import MODULE as REMAINING
from .slurm_site import Batch, SlurmSite, minutes

BEFORE_THE_END = 300
"""Seconds before a job's time limit at which its script is told, and the ranks save."""
END = "etude.runtime.launchers.slurm_end"
SCRIPTS = "launch"
"""The subfolder of the run folder with the scripts."""

_BODY = """\

set -uo pipefail
{setup}
export OMP_WAIT_POLICY=PASSIVE
own_threads=${{OMP_NUM_THREADS:-}}

# Before its time is up, and when it has to give way, Slurm tells this script. The ranks then save
# their state and end with 75. (SIGTERM to srun would kill them.)
told= leaving= step={step} before=0 code=0
tell() {{
  told=yes leaving=yes
  for seconds in 1 2 4 8; do  # the ranks may be starting
    scancel --signal=USR1 "$SLURM_JOB_ID.$step" && break
    sleep "$seconds"
  done
}}
trap tell USR1 TERM

ranks() {{  # NODES RANKS: of each node
  local threads=$((SLURM_CPUS_ON_NODE / $2)) step_id
  export OMP_NUM_THREADS=${{own_threads:-$((threads > 0 ? threads : 1))}}
  before=$({before})
  srun --nodes="$1" --ntasks="$(($1 * $2))" --ntasks-per-node="$2" {srun} \\
    {command} < /dev/null &
  step_id=$!
  code=127
  while :; do
    told=
    wait "$step_id"
    local now=$?
    [ "$now" = 127 ] || code=$now
    [ -n "$told" ] || break
  done
}}

{walk}
# 0: {done}. 75: queue the job again. Anything else: a person is
# needed, and what waits for this job is cancelled.
[ "$code" = 0 ] && exit 0
{end} "${phase}" {attempts} "$before" "$code"
verdict=$?
if [ "$verdict" = 75 ]; then
  scontrol requeue "$SLURM_JOB_ID" && sleep 600
fi
exit "$verdict"
"""
_ONE = """\
export {phase}={number}
ranks {nodes} {ranks}

"""
_SEVERAL = """\
# Phases on the same nodes, one after the other, from the first that is not done.
export {phase}={first}
left=$({remaining}) || code=75
while read -r next nodes each && [ "$code" = 0 ]; do
  [ -n "$next" ] || break
  {phase}=$next
  if [ -n "$leaving" ]; then code=75; break; fi  # no time is left for another one
  ranks "$nodes" "$each"
  step=$((step + 1))
done <<< "$left"

"""


def job_name(plan: Plan, phase: str) -> str:
    """Slurm's name for the job whose first phase this is."""
    return f"{_run(plan)}-{phase}"


def _run(plan: Plan) -> str:
    run = f"{plan.recipe}-{plan.variant}" if plan.variant else plan.recipe
    return f"etude-{run}"


def script(request: Request, of: Allocation, site: SlurmSite) -> Piece:
    """The script of phases that share a job."""
    plan, phase = request.plan, of.phases[0]
    jobs = [job for each in of.phases for job in each.jobs]
    nodes = counted(of.machines.nodes, "nodes")
    head = [
        "#!/bin/bash -l" if site.modules else "#!/bin/bash",  # `module` needs a login shell
        f"# {plan.recipe}{options(plan)}, {of.shown()} on {nodes}: "
        + " … ".join(jobs[:: max(len(jobs) - 1, 1)]),
        "# `etude launch` has written it. It may be started any number of times: it continues.",
    ]
    said = _directives(request, of, site)
    lines = [*head, *(f"#SBATCH {option}" for option in said)]
    several = len(of.phases) > 1
    asks = several and _in_box(site)
    body = _BODY.format(
        setup="\n".join(_setup(site)),
        phase=PHASE,
        step=int(asks),  # the first one asks which phases are left
        srun=" ".join(_srun(request, phase, site)),
        command=_python(site, _worker(request, phase, site)),
        walk=_walk(request, of, site),
        done=f"the phase{'s are' if several else ' is'} done, and the next one begins",
        end=_beside(request, phase, site, [END, request.address]),
        attempts=site.attempts,
        before=_before(request),
    )
    return Piece(f"{of.name}.sh", "\n".join(lines) + "\n" + body)


def _walk(request: Request, of: Allocation, site: SlurmSite) -> str:
    """The part of the script that says which phases are done, and how they follow each other."""
    first, last = of.numbers
    if first == last:
        nodes, ranks, _ = of.machines
        return _ONE.format(phase=PHASE, number=first, nodes=nodes, ranks=ranks)
    asked = [REMAINING, request.address, str(first), str(last)]
    if site.gpus_per_node:
        asked.append(str(site.gpus_per_node))
    return _SEVERAL.format(
        phase=PHASE, first=first, remaining=_beside(request, of.phases[0], site, asked)
    )


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


def _directives(request: Request, of: Allocation, site: SlurmSite) -> Iterator[str]:
    phase, machines = of.phases[0], of.machines
    batch = site.batch(phase.kind)
    yield f"--job-name={job_name(request.plan, of.name)}"
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
    yield from _box(request, phase, site)


def _box(request: Request, phase: Phase, site: SlurmSite) -> Iterator[str]:
    """What srun does not inherit from the job: cores, and the container to start."""
    if (cpus := site.batch(phase.kind).cpus) is not None:
        yield f"--cpus-per-task={cpus}"
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


def _beside(request: Request, phase: Phase, site: SlurmSite, module: list[str]) -> str:
    """The command that runs a module of etude once, on the script's node."""
    command = _python(site, module)
    if _in_box(site):
        box = " ".join(_box(request, phase, site))
        return f'srun --nodes=1 --ntasks=1 --overlap --nodelist="$SLURMD_NODENAME" {box} {command}'
    return command


def _in_box(site: SlurmSite) -> bool:
    """Whether etude is only inside of what srun starts."""
    return site.container is not None and site.container.runs_with == "pyxis"


def _quoted(path: Path) -> str:
    """A path in a directive, with % escaped: Slurm expands it as a pattern."""
    parts = path.parent.as_posix().replace("%", "%%"), path.name
    return shlex.quote("/".join(parts))
