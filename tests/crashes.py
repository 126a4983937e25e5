"""Kills runs at random moments, and compares what they make with an undisturbed run.

    make crashes KILLS=300
    python tests/crashes.py KILLS [KILLS_OF_TWO_RANKS [KILLS_ON_SLURM]] [--log FILE]

Three recipes have stages of every kind and what trainers can do besides (`all_kinds`); each gets a
third of the kills. A trial begins one in a new folder, kills it, continues it, kills it again, and
so on; then it runs to its end. All that its jobs have made must have the bits of a run that nobody
killed, every file the checksum that its manifest names, and no work may be left over. The moments
come from fixed seeds, and are anywhere in the time that the rest of a run takes.

    SIGKILL    the process, or the launcher of a gang: no warning, nothing is cleaned up
    SIGTERM    the process asks itself to stop, saves, and ends with 75
    OOM        SIGKILL of one process below: a rank, or what verifies answers; of the process
               itself where there is none

On a virtual Slurm cluster a run is killed in other ways (`slurm/slurm_crashes.py`).

A failure is printed with its seed and folder, which is kept; the exit code is 1 where there is one.
With `--log`, a file gets a line for each trial, and the same command goes on where it was stopped.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "end_to_end"), str(ROOT / "slurm"), str(ROOT.parent)]

from all_kinds import LEARNERS, SPEC, UPDATES, results, write  # noqa: E402
from crash_trials import LOCAL, SLURM, Kill, Trial, commit, hit, read, record, write_table, wrong  # noqa: E402
from etude_cli import environment  # noqa: E402
from forking import Ended, Forking  # noqa: E402
from slurm_crashes import Launched, slurm  # noqa: E402
from slurm_runs import PAIR, Runs  # noqa: E402
from stopping import descendants  # noqa: E402

WAYS = ("SIGKILL", "SIGTERM", "OOM")
RECIPES = {"all kinds": SPEC, "learners": LEARNERS, "updates": UPDATES}
A_TRIAL = 10
"""Kills of one run."""
HEALTHY = {"SIGKILL": (-9,), "SIGTERM": (75,), "OOM": (-9, 75)}
"""The exit codes of a run that is killed in a way; 0, too, if the kill came too late."""


class Harness:
    """Runs of one recipe, killed and undisturbed.

    Args:
        home: the folder of all trials.
    """

    def __init__(self, server: Forking, home: Path, spec: str = SPEC, ranks: int = 1) -> None:
        self._server = server
        self._home = home
        self._spec = spec
        self._ranks = ranks
        self._command = ("run", "spec.etude", "--folder", "run", "--ranks", str(ranks), "--json")
        folder = self._begun("undisturbed")
        server.run("--version", cwd=folder)  # is answered once all is imported
        begun = time.monotonic()
        done = server.run(*self._command, cwd=folder)
        self.seconds = time.monotonic() - begun
        if done.code:
            raise SystemExit(f"an undisturbed run ends with {done.code}:\n{done.err}")
        self.expected = results(folder / "run")
        # Starting again takes a part of the time of every run.
        begun = time.monotonic()
        server.run(*self._command, cwd=folder)
        self.start = time.monotonic() - begun

    def trial(self, seed: int, kills: int = A_TRIAL) -> Trial:
        """Kills a run so many times, and runs it to its end."""
        random = Random(seed)
        folder = self._begun(f"{self._ranks}-{seed}")
        trial = Trial(seed, self._ranks)
        tries = 0
        while len(trial.kills) < kills and tries < 3 * kills:
            tries += 1
            way = random.choice(WAYS)
            # Mostly early, so that there is something left to kill.
            moment = random.random() ** 3 * (self.seconds - self.start) + self.start / 2
            done = self._killed(way, moment, random, folder)
            # If the run was over, it goes on in a fresh folder.
            if done.code == 0:
                trial.wrong += self._wrong(done, folder)
                if trial.wrong:
                    return trial
                shutil.rmtree(folder)
                folder = self._begun(f"{self._ranks}-{seed}")
                continue
            trial.kills.append(Kill(way, hit(folder / "run")))
            if done.code not in HEALTHY[way] or "Traceback" in done.err or "bug in" in done.err:
                trial.wrong.append(f"{way} after {moment:.2f} s: exit code {done.code}\n{done.err}")
                return trial
        trial.wrong += self._wrong(self._server.run(*self._command, cwd=folder), folder)
        if not trial.wrong:
            shutil.rmtree(folder)
        return trial

    def _begun(self, name: str) -> Path:
        folder = self._home / name
        folder.mkdir(parents=True)
        write(folder, self._spec)
        return folder

    def _killed(self, way: str, moment: float, random: Random, folder: Path) -> Ended:
        """A run that is killed so many seconds after it has begun, if it takes so long."""

        def disturb(process: int) -> None:
            end = time.monotonic() + moment
            while time.monotonic() < end:
                if _ended(process):
                    return
                time.sleep(0.005)
            below = descendants(process) if way == "OOM" and not _ended(process) else []
            whom = random.choice(below) if below else process
            number = signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL
            try:
                os.kill(whom, number)
            except ProcessLookupError:
                return

        return self._server.run(*self._command, cwd=folder, disturb=disturb)

    def _wrong(self, done: Ended, folder: Path) -> list[str]:
        """What is wrong with a run that has ended by itself."""
        if done.code:
            return [f"continuing ends with {done.code}\n{done.err}"]
        return wrong(folder / "run", self.expected)


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def main(words: Sequence[str] | None = None) -> int:
    """Kills as often as it is told to, or writes the table; returns the exit code."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, count in (("kills", 300), ("kills_of_two", 0), ("kills_on_slurm", 0)):
        parser.add_argument(name, type=int, nargs="?", default=count)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--log", type=Path, help="go on with what this file has of an earlier one")
    args = parser.parse_args(words)
    home = Path(tempfile.mkdtemp(prefix="crashes-"))
    log = (args.log or home / "trials.jsonl").resolve()
    wanted = (
        (1, LOCAL, args.kills),
        (2, LOCAL, args.kills_of_two),
        (2, SLURM, args.kills_on_slurm),
    )
    with ExitStack() as stack:
        server = stack.enter_context(Forking(environment()))
        harnesses = Harnesses(server, stack, home)
        for ranks, where, kills in wanted:
            for number, recipe in enumerate(RECIPES):
                share = (kills + len(RECIPES) - 1 - number) // len(RECIPES)
                own = Trial(args.first, ranks, recipe, where)
                _trials(partial(harnesses.of, recipe, ranks, where), own, share, log)
    trials = list(read(log))
    spoken = " ".join(map(str, (args.kills, args.kills_of_two, args.kills_on_slurm)))
    write_table(trials, f"python tests/crashes.py {spoken}")
    wrong = any(trial.wrong for trial in trials)
    if not wrong:
        shutil.rmtree(home)
    return int(wrong)


class Harnesses:
    """What runs and kills, each made when it is needed first.

    Args:
        stack: closes what they leave open.
        home: the folder of all trials.
    """

    def __init__(self, server: Forking, stack: ExitStack, home: Path) -> None:
        self._server = server
        self._stack = stack
        self._home = home
        self._cluster: Runs | None = None

    def of(self, recipe: str, ranks: int, where: str) -> "Harness | Launched":
        """That of a recipe in a place."""
        home = self._home / f"{recipe.replace(' ', '-')}-{ranks}-{where}"
        spec = RECIPES[recipe]
        print(f"{recipe}, {ranks} ranks, {where}: an undisturbed run …", flush=True)
        if where == LOCAL:
            return Harness(self._server, home, spec, ranks)
        # What Slurm makes on two nodes has the bits that two processes make here.
        expected = Harness(self._server, home, spec + PAIR, ranks).expected
        self._cluster = self._cluster or self._stack.enter_context(slurm())
        return Launched(self._cluster, home, spec, expected)


def _trials(harness: "Callable[[], Harness | Launched]", of: Trial, wanted: int, log: Path) -> None:
    """Trials of a recipe in a place until there are so many kills in all, with those of the log."""
    place = (of.recipe, of.ranks, of.where)
    earlier = [t for t in read(log) if (t.recipe, t.ranks, t.where) == place]
    done = sum(len(trial.kills) for trial in earlier)
    seed = max([1000 * of.ranks + of.seed - 1, *(trial.seed for trial in earlier)])
    made = None
    while done < wanted:
        made = made or harness()
        seed += 1
        begun = time.monotonic()
        trial = made.trial(seed, min(A_TRIAL, wanted - done))
        trial.recipe, trial.seconds, trial.commit = of.recipe, time.monotonic() - begun, commit()
        record(trial, log)
        done += len(trial.kills)
        said = "; ".join(trial.wrong) or "the same bits"
        print(f"{', '.join(map(str, place))}, seed {seed}: {done} of {wanted}: {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
