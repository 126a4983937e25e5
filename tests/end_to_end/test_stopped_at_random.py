"""A run with stages of every kind that is asked to stop at random moments, twenty times."""

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from all_kinds import KINDS, results, write
from etude_cli import COMMAND, environment
from stopping import PATIENCE, listens

from etude.compiler.plan.plan_schema import read_plan

STOPS = 5
"""Of a seed."""
BEGUN = ("run", "spec.etude", "--folder", "run", "--json")


def steps(output: str) -> Counter[tuple[str, int]]:
    """The steps that a command has told of."""
    events = (json.loads(line) for line in output.splitlines())
    return Counter((e["job"], e["step"]) for e in events if e["event"] == "step")


def listening(folder: Path) -> subprocess.Popen[str]:
    """The command, begun so far that it listens to signals."""
    process = subprocess.Popen(
        [*COMMAND, *BEGUN],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not listens(process.pid, signal.SIGTERM):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def asked_after(seconds: float | None, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the spec, and asks it to stop so long after it has begun to listen; None: never."""
    process = listening(folder)
    try:
        out, err = process.communicate(timeout=seconds or 10 * PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Undisturbed(NamedTuple):
    """A run that nobody asks to stop.

    Attributes:
        results: checksums of what it has made.
        taken: the steps that it has taken, each once.
        seconds: how long it takes from when it listens to signals.
    """

    results: dict[str, dict[str, str]]
    taken: Counter[tuple[str, int]]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder)
    process = listening(folder)
    begun = time.monotonic()
    out, err = process.communicate(timeout=10 * PATIENCE)
    seconds = time.monotonic() - begun
    assert process.returncode == 0, out + err
    assert {job.kind for job in read_plan(folder / "run" / "plan.json").jobs} >= KINDS
    events = map(json.loads, out.splitlines())
    assert any(e["attempt"] > 0 for e in events if e["event"] == "gate"), "a gate fails at first"
    taken = steps(out)
    assert set(taken.values()) == {1}
    return Undisturbed(results(folder / "run"), taken, seconds)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_asked_to_stop_five_times_at_random_it_ends_with_the_same_bits(
    seed: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """A moment is anywhere in the time that an undisturbed run takes. The runs that continue are
    asked as well, while they start and after, until one ends before its moment comes."""
    random, stops, number = Random(seed), 0, 0
    while stops < STOPS:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        told: Counter[tuple[str, int]] = Counter()
        before, code = stops, 75
        while code == 75:
            moment = random.uniform(0, undisturbed.seconds) if stops < STOPS else None
            part = asked_after(moment, folder)
            told += steps(part.stdout)
            code = part.returncode
            assert code in (0, 75), f"asked after {moment} s: {code}\n{part.stderr}"
            assert "Traceback" not in part.stderr
            stops += code == 75
            assert stops <= STOPS, "it takes too long"
            print(f"{moment} s of {undisturbed.seconds:.0f}: {code}", _said(part.stderr))
        assert told.keys() == undisturbed.taken.keys()
        repeated = told.total() - len(told)
        assert repeated <= stops - before, "a stop costs one step at most"
        assert results(folder / "run") == undisturbed.results
        print(f"the same bits after {stops - before} stops; {repeated} steps were taken twice")


def _said(errors: str) -> str:
    return next((line for line in errors.splitlines() if line.startswith("error: ")), "")
