"""Runs that were killed and continued: what hit them, whether they ended as they should, and the
table of it in `benchmarks/RESULTS.md`."""

import hashlib
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from all_kinds import results

LOCAL, SLURM = "local", "Slurm"


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
        where: `LOCAL` or `SLURM`.
        seconds: that it took, with what was repeated.
        commit: of etude.
        wrong: what is not as it should be.
    """

    seed: int
    ranks: int
    recipe: str = ""
    where: str = LOCAL
    seconds: float = 0
    commit: str = ""
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def record(trial: Trial, log: Path) -> None:
    """Adds a trial to a log, a line each."""
    with log.open("a") as file:
        file.write(json.dumps(asdict(trial)) + "\n")


def read(log: Path) -> Iterator[Trial]:
    """The trials of a log; none if there is no log."""
    for line in log.read_text().splitlines() if log.exists() else ():
        told = json.loads(line)
        yield Trial(**{**told, "kills": [Kill(**kill) for kill in told["kills"]]})


def commit() -> str:
    """The commit that is tried."""
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip()


def hit(run: Path) -> str:
    """The kind of the job that is in progress, or was when a run ended; "" if there is none."""
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


def wrong(run: Path, expected: Mapping[str, dict[str, str]]) -> list[str]:
    """What is wrong with the folder of a run that has ended by itself.

    Args:
        expected: the `results` of an undisturbed run.
    """
    said = []
    if (found := results(run)) != expected:
        said.append(f"other bits: {sorted(_different(found, expected))}")
    for path in run.glob("artifacts/*/manifest.json"):
        for name, file in json.loads(path.read_bytes())["files"].items():
            digest = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
            if digest != file["sha256"]:
                said.append(f"not what its manifest says: {path.parent / name}")
    left = [*run.glob("work/*"), *run.glob("lease.json*")]
    return said + [f"left over: {path}" for path in left]


def _different(
    one: Mapping[str, dict[str, str]], other: Mapping[str, dict[str, str]]
) -> Iterator[str]:
    for key in one.keys() | other.keys():
        mine, theirs = one.get(key, {}), other.get(key, {})
        for name in mine.keys() | theirs.keys():
            if mine.get(name) != theirs.get(name):
                yield f"{key[:8]}/{name}"


def write_table(trials: Sequence[Trial], command: str) -> None:
    """Writes the section of `benchmarks/RESULTS.md`."""
    from benchmarks.results import write_section

    names = ("etude", "torch", "torchtitan")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    commits = ", ".join(dict.fromkeys(trial.commit for trial in trials))
    kills = sum(len(trial.kills) for trial in trials)
    good = sum(not trial.wrong for trial in trials)
    write_section(
        "Crashes",
        f"`{command}` on {platform.machine()}, Python {platform.python_version()}, {libraries}, "
        f"commit {commits}; {sum(trial.seconds for trial in trials):,.0f} s beside other work. The "
        f"recipes have stages of every kind. {len(trials)} runs were killed {kills} times in all; "
        f"{good} of them ended with the bits of a run that nobody has killed.\n\n"
        f"{_of_runs(trials)}\n\nThe jobs that were hit:\n\n{_of_jobs(trials)}",
    )


def _of_runs(trials: Sequence[Trial]) -> str:
    """A row for each recipe, number of ranks and place: its runs, and its kills by their way."""
    ways = list(dict.fromkeys(kill.way for trial in trials for kill in trial.kills))
    rows = []
    for recipe, ranks, where in dict.fromkeys((t.recipe, t.ranks, t.where) for t in trials):
        own = [t for t in trials if (t.recipe, t.ranks, t.where) == (recipe, ranks, where)]
        count = Counter(kill.way for trial in own for kill in trial.kills)
        good = sum(not trial.wrong for trial in own)
        counts = [count[way] for way in ways]
        rows.append([recipe, where, ranks, len(own), good, sum(counts), *counts])
    head = ["recipe", "where", "ranks", "runs", "of these with the same bits", "kills", *ways]
    return _table(head, 2, rows)


def _of_jobs(trials: Sequence[Trial]) -> str:
    """A row for each kind of job that was hit: how often, where, and in which way."""
    places = sorted({(trial.where, trial.ranks) for trial in trials}, key=lambda p: (p[0], p[1]))
    count = Counter(
        (kill.job, trial.where, trial.ranks, kill.way) for trial in trials for kill in trial.kills
    )
    total = Counter(kill.job for trial in trials for kill in trial.kills)
    cells = {
        (*place, way): f"{_place(*place)}, {way}"
        for place in places
        for way in sorted({way for _, *of, way in count if tuple(of) == place})
    }
    rows = []
    for kind, times in sorted(total.items(), key=lambda item: (not item[0], -item[1])):
        shown = [count[kind, *cell] or "" for cell in cells]
        rows.append([kind or "between jobs, or while starting", times, *shown])
    return _table(["job", "kills", *cells.values()], 1, rows)


def _place(where: str, ranks: int) -> str:
    return where if where == SLURM else f"{ranks} rank{'s' * (ranks > 1)}"


def _table(head: Iterable[object], words: int, rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, with so many columns of words before those of numbers."""
    names = [str(name) for name in head]
    rule = ["---" if number < words else "---:" for number in range(len(names))]
    lines = [names, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
