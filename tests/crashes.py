"""Kills runs at random moments, and compares what they make with an undisturbed run.

    make crashes KILLS=300
    python tests/crashes.py KILLS [KILLS_OF_TWO_RANKS]

Two recipes have stages of every kind and what trainers can do besides (`all_kinds`); each gets half
of the kills. A trial begins one in a new folder, kills it, continues it, kills it again, and so on;
then it runs to its end. All that its jobs have made must
have the bits of a run that nobody killed, every file the checksum that its manifest names, and no
work may be left over. The moments come from fixed seeds, and are anywhere in the time that the rest
of a run takes.

    SIGKILL    the process, or the launcher of a gang: no warning, nothing is cleaned up
    SIGTERM    the process asks itself to stop, saves, and ends with 75
    OOM        SIGKILL of one process below: a rank, or what verifies answers; of the process
               itself where there is none

A failure is printed with its seed and folder, which is kept; the exit code is 1 where there is one.
"""

import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "end_to_end"), str(ROOT.parent)]

from all_kinds import LEARNERS, SPEC, results, write  # noqa: E402
from forking import Ended, Forking  # noqa: E402
from stopping import descendants  # noqa: E402

WAYS = ("SIGKILL", "SIGTERM", "OOM")
RECIPES = {"all kinds": SPEC, "learners": LEARNERS}
A_TRIAL = 10
"""Kills of one run."""
HEALTHY = {"SIGKILL": (-9,), "SIGTERM": (75,), "OOM": (-9, 75)}
"""The exit codes of a run that is killed in a way; 0, too, if the kill came too late."""


@dataclass
class Kill:
    """A kill that has hit.

    Attributes:
        job: the kind of the job that it hit; "" if it hit between jobs, or before the first.
    """

    way: str
    job: str


@dataclass
class Trial:
    """A run that was killed, continued, and has ended.

    Attributes:
        recipe: its name in `RECIPES`.
        wrong: what is not as it should be.
    """

    seed: int
    ranks: int
    recipe: str = ""
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


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
            moment = random.random() ** 2 * (self.seconds - self.start) + self.start / 2
            done = self._killed(way, moment, random, folder)
            # If the run was over, it goes on in a fresh folder.
            if done.code == 0:
                trial.wrong += self._wrong(done, folder)
                if trial.wrong:
                    return trial
                shutil.rmtree(folder)
                folder = self._begun(f"{self._ranks}-{seed}")
                continue
            trial.kills.append(Kill(way, _hit(folder / "run")))
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
        run = folder / "run"
        wrong = []
        if (found := results(run)) != self.expected:
            wrong.append(f"other bits: {sorted(_different(found, self.expected))}")
        for path in run.glob("artifacts/*/manifest.json"):
            for name, file in json.loads(path.read_bytes())["files"].items():
                digest = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
                if digest != file["sha256"]:
                    wrong.append(f"not what its manifest says: {path.parent / name}")
        left = [*run.glob("work/*"), *run.glob("lease.json*")]
        return wrong + [f"left over: {path}" for path in left]


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _hit(run: Path) -> str:
    """The kind of the job that was in progress when a run ended; "" if there was none."""
    found = ""
    try:
        lines = (run / "events.jsonl").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if event["event"] == "started":
            found = event["kind"]
        elif event["event"] == "finished":
            found = ""
    return found


def _different(one: dict[str, dict[str, str]], other: dict[str, dict[str, str]]) -> Iterator[str]:
    for key in one.keys() | other.keys():
        mine, theirs = one.get(key, {}), other.get(key, {})
        for name in mine.keys() | theirs.keys():
            if mine.get(name) != theirs.get(name):
                yield f"{key[:8]}/{name}"


def main(kills: int, on_two: int, first: int = 0) -> int:
    """Kills that often, on one rank and on two; returns the exit code.

    Args:
        first: the first seed.
    """
    from etude_cli import environment

    home = Path(tempfile.mkdtemp(prefix="crashes-"))
    begun = time.monotonic()
    trials: list[Trial] = []
    with Forking(environment()) as server:
        for ranks, wanted in ((1, kills), (2, on_two)):
            for number, (recipe, spec) in enumerate(RECIPES.items()):
                share = (wanted + 1 - number) // len(RECIPES)
                if share:
                    place = home / f"{recipe.replace(' ', '-')}-{ranks}"
                    harness = Harness(server, place, spec, ranks=ranks)
                    print(f"{ranks} ranks, {recipe}: {harness.seconds:.0f} s", flush=True)
                    trials += _trials(harness, recipe, share, 1000 * ranks + first)
    _write(trials, time.monotonic() - begun)
    wrong = any(trial.wrong for trial in trials)
    if not wrong:
        shutil.rmtree(home)
    return int(wrong)


def _trials(harness: Harness, recipe: str, wanted: int, seed: int) -> Iterator[Trial]:
    """Trials of a recipe with so many kills in all."""
    done = 0
    while done < wanted:
        trial = harness.trial(seed, min(A_TRIAL, wanted - done))
        trial.recipe = recipe
        done += len(trial.kills)
        said = "; ".join(trial.wrong) or "the same bits"
        print(f"{recipe}, seed {seed}: {done} of {wanted}: {said}", flush=True)
        seed += 1
        yield trial


def _write(trials: list[Trial], seconds: float) -> None:
    """Writes the table of `benchmarks/RESULTS.md`."""
    from benchmarks.results import write_section

    kills: Counter[tuple[str, int, str]] = Counter()
    hit: Counter[str] = Counter()
    for trial in trials:
        for kill in trial.kills:
            kills[trial.recipe, trial.ranks, kill.way] += 1
            hit[kill.job] += 1
    rows = []
    for recipe, ranks in dict.fromkeys((trial.recipe, trial.ranks) for trial in trials):
        own = [trial for trial in trials if (trial.recipe, trial.ranks) == (recipe, ranks)]
        ways = [kills[recipe, ranks, way] for way in WAYS]
        good = sum(not trial.wrong for trial in own)
        cells = [recipe, ranks, len(own), sum(ways), *ways, good]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    on = {ranks: sum(n for (_, of, _), n in kills.items() if of == ranks) for ranks in (1, 2)}
    between = hit.pop("", 0)
    during = ", ".join(f"{kind} {count}" for kind, count in hit.most_common())
    names = ("etude", "torch", "torchtitan")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    write_section(
        "Crashes",
        f"`python tests/crashes.py {on[1]} {on[2]}` on "
        f"{platform.machine()}, Python {platform.python_version()}, {libraries}; "
        f"{seconds:,.0f} s beside other work. The recipes have stages of every kind.\n\n"
        f"| recipe | ranks | runs | kills | {' | '.join(WAYS)} | "
        "runs that end with the same bits |\n"
        f"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n{chr(10).join(rows)}\n\n"
        f"Jobs that were hit: {during}; between jobs and while starting {between}.",
    )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(given + [300, 0][len(given) :])))
