"""Runs on a virtual Slurm cluster that are killed at random moments, and run to their ends.

USR1     the ranks of a step are told that their job has to give way: they save, and Slurm queues
         the job again
TERM     the same by SIGTERM
KILL     the step is killed on all its nodes
scancel  the whole job ends, and what waits for it; the run is launched again
OOM      SIGKILL of one rank
node     a node dies: its daemon, its part of the step and all that runs there. Another takes its
         place; it comes back a little later
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

from all_kinds import write
from crash_trials import SLURM, Kill, Trial, hit, wrong
from slurm_runs import ENDED_BADLY, PAIR, Runs
from virtual import Process, cluster

NODES = 3
"""A job takes two of them."""
SITE = "[slurm]\nattempts = 100\n"
"""A run is killed more often than a cluster would try in vain."""
LATEST = 40
"""Seconds after a kill, or a start, in which the next one comes."""
PATIENCE = 1200
"""Seconds after which a run hangs."""


@contextlib.contextmanager
def slurm() -> Iterator[Runs]:
    """A cluster for trials."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as folder,
        cluster(Path(folder), NODES) as started,
    ):
        yield Runs(started)


class Launched:
    """Runs of one recipe on a cluster.

    Args:
        home: the folder of all trials.
        expected: the `results` of an undisturbed run on as many ranks.
    """

    def __init__(
        self, runs: Runs, home: Path, spec: str, expected: Mapping[str, dict[str, str]]
    ) -> None:
        self._runs = runs
        self._home = home
        self._spec = spec + PAIR
        self._expected = expected

    def trial(self, seed: int, kills: int) -> Trial:
        """Kills a run so many times, and lets it end."""
        random = Random(seed)
        folder = self._home / f"slurm-{seed}"
        trial = Trial(seed, 2, where=SLURM)
        run = self._launched(folder)
        while len(trial.kills) < kills and not trial.wrong:
            if self._ends_within(run, random.uniform(1, LATEST), trial):
                trial.wrong += wrong(run, self._expected)
                if not trial.wrong:  # it goes on in a fresh folder
                    shutil.rmtree(folder)
                    run = self._launched(folder)
                continue
            job = hit(run)
            if way := self._kill(run, random):
                trial.kills.append(Kill(way, job))
        if not trial.wrong:
            if self._ends_within(run, PATIENCE, trial):
                trial.wrong += wrong(run, self._expected)
            elif not trial.wrong:
                trial.wrong.append(f"it hangs\n{self._runs.logs(run)}")
        if not trial.wrong:
            shutil.rmtree(folder)
        return trial

    def _launched(self, folder: Path) -> Path:
        """Launches a run, for the first time or again."""
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, self._spec)
        (folder / "site.toml").write_text(SITE)
        return self._runs.launch(folder, self._spec, "--site", "site.toml")

    def _ends_within(self, run: Path, seconds: float, trial: Trial) -> bool:
        """Whether a run ends in that time. What needs a person's hand gets it meanwhile: a chain
        that was cancelled is launched again, and a job that Slurm holds since its node was lost is
        released. A chain that ends badly by itself is `wrong`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            states = self._runs.cluster.states()
            mine = [states.get(job, "") for job in self._runs.jobs(run).values()]
            if all(state == "COMPLETED" for state in mine):
                return True
            if bad := ENDED_BADLY.intersection(mine):
                if not self._was_cancelled(trial) or bad != {"CANCELLED"}:
                    trial.wrong.append(f"it ends with {mine}\n{self._runs.logs(run)}")
                    return False
                if not {"RUNNING", "COMPLETING", "PENDING"}.intersection(mine):
                    self._launched(run.parent.parent)
            self._release()
            time.sleep(0.5)
        return False

    def _was_cancelled(self, trial: Trial) -> bool:
        return any(kill.way == "scancel" for kill in trial.kills)

    def _release(self) -> None:
        listed = self._runs.cluster.run("squeue", "--noheader", "--format=%i %r")
        for job, _, reason in (line.partition(" ") for line in listed.splitlines()):
            if "held" in reason.lower():
                self._runs.cluster.run("scontrol", "release", job)

    def _kill(self, run: Path, random: Random) -> str:
        """Kills something of a run; returns the way, or "" where nothing of it runs."""
        states = self._runs.cluster.states()
        running = [job for job in self._runs.jobs(run).values() if states.get(job) == "RUNNING"]
        if not running:
            return ""
        (job,) = running  # they wait for each other
        way = random.choice(sorted(WAYS))
        with contextlib.suppress(AssertionError):  # it has just ended
            return way if WAYS[way](self._runs, run, job, random) else ""
        return ""


def _step(runs: Runs, job: str) -> str:
    """The step of a job's ranks; "" if it has none now."""
    listed = runs.cluster.run("squeue", "--steps", "--noheader", f"--job={job}", "--format=%i")
    steps = [step for step in listed.split() if step.rpartition(".")[2].isdecimal()]
    return steps[-1] if steps else ""


def _signals(name: str) -> Callable[[Runs, Path, str, Random], bool]:
    def kill(runs: Runs, run: Path, job: str, random: Random) -> bool:
        if step := _step(runs, job):
            runs.cluster.run("scancel", f"--signal={name}", step)
        return bool(step)

    return kill


def _ends(runs: Runs, run: Path, job: str, random: Random) -> bool:
    runs.cluster.run("scancel", job)
    return True


def _one_rank(runs: Runs, run: Path, job: str, random: Random) -> bool:
    ranks = [process for process in runs.cluster.processes() if _is_rank(process, run)]
    if ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(ranks).pid, signal.SIGKILL)
    return bool(ranks)


def _is_rank(process: Process, run: Path) -> bool:
    return str(run) in process.command and "etude.runtime.worker" in process.command


def _node(runs: Runs, run: Path, job: str, random: Random) -> bool:
    lost = random.choice(runs.nodes(job))
    runs.cluster.kill_node(lost)
    # It is not there for longer than Slurm waits for it, most of the time.
    time.sleep(random.uniform(2, 30))
    runs.cluster.node(lost)
    return True


WAYS: Mapping[str, Callable[[Runs, Path, str, Random], bool]] = {
    "USR1": _signals("USR1"),
    "TERM": _signals("TERM"),
    "KILL": _signals("KILL"),
    "scancel": _ends,
    "OOM": _one_rank,
    "node": _node,
}
