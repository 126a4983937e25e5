"""Runs on a disk that becomes full or breaks, at every kind of file that a run writes.

A library in C lets writes below the run folder fail (`disk_faults.c`). One run is stopped by one
kind of file after the other, and goes on each time. In the end it has the bits of a run on a good
disk.
"""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from all_kinds import SPEC, results, write
from etude_cli import environment
from forking import Ended, Forking
from test_crashes import FEW

SOURCE = Path(__file__).parents[1] / "disk_faults.c"
COMMAND = ("run", "spec.etude", "--folder", "run", "--json")
SOME = [
    ("plan.json", "*plan.json*", "w"),
    ("lease.json", "lease.json*", "w"),
    ("journal.jsonl", "journal.jsonl", "w"),
    ("tokenizer.json", "work/*tokenizer.json*", "w"),
    ("result", "work/*.bin", "w"),
    ("checkpoints/step-", "work/*checkpoints/*.distcp", "w"),
    ("metrics/pretrain.1.jsonl", "metrics/*", "w"),
    ("result.partial", "work/*positions.json*", "w"),
    ("manifest.json", "work/*.manifest.json*", "w"),
    ("result.partial", "work/*.new", "c"),
]
"""Of what the message names, the pattern of the files, and what fails: see `disk_faults.c`. In the
order in which a run writes them."""
ALL = [
    *SOME[:3],
    ("events.jsonl", "events.jsonl", "w"),
    ("ran.json", "work/*ran.json*", "w"),
    SOME[3],
    ("result", "artifacts/*", "r"),
    SOME[4],
    ("result", "work/*train-index.npy", "w"),
    ("journal.jsonl", "journal.jsonl", "s"),
    SOME[5],
    ("checkpoints/step-", "work/*checkpoints/*.distcp", "s"),
    ("checkpoints/step-", "work/*checkpoints/*.metadata.tmp", "w"),
    ("checkpoints/step-", "work/*checkpoints/*checksums.json*", "w"),
    ("checkpoints/step-", "work/*checkpoints/step-*", "c"),
    SOME[6],
    ("result.partial/state", "work/*result.partial/state/*.distcp", "w"),
    ("result.partial/weights", "work/*result.partial/weights/*.distcp", "w"),
    *SOME[7:9],
    ("chunks", "work/*chunks/*", "w"),
    ("result.partial", "work/*scores.npy*", "w"),
    SOME[9],
    ("result.partial", "work/*/.config.json*", "w"),
    ("draws.partial.jsonl", "work/*draws.partial.jsonl", "w"),
    ("result.partial", "work/*advantages.npy*", "w"),
    ("result.partial", "work/*result.partial/weights/*", "w"),
    ("verdict.json", "work/*verdict.json*", "w"),
    ("scores.partial.json", "work/*.scores.partial.json*", "w"),
    ("models/", "models/*", "c"),
]


SPACE = ("the disk is full", "the quota of the disk is used up")
"""What messages say of space in other words than the system."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("library") / "faults.so"
    flags = ["-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run([compiler, *flags], check=True)
    with Forking(environment() | {"LD_PRELOAD": str(library)}) as started:
        yield started


def stopped(
    server: Forking, folder: Path, fault: tuple[str, str, str], number: int
) -> tuple[Ended, bool]:
    """A run of which such a file cannot be written, and whether it came that far."""
    _, pattern, what = fault
    spent = folder / "spent"
    spent.unlink(missing_ok=True)
    variables = {
        "FAULT_UNDER": str(folder / "run"),
        "FAULT_NAME": pattern,
        "FAULT_OF": what,
        "FAULT_ERRNO": str(number),
        "FAULT_SPENT": str(spent),
    }
    if number == errno.ENOSPC:
        variables["FAULT_ALL"] = "yes"
    done = server.run(*COMMAND, cwd=folder, environment=variables)
    return done, spent.exists()


def kept(run: Path) -> dict[str, bytes]:
    """What a run has finished: journal and manifests."""
    files = [*run.glob("artifacts/*/manifest.json"), *run.glob("journal.jsonl")]
    return {str(file): file.read_bytes() for file in files}


def chain(
    server: Forking,
    folder: Path,
    spec: str,
    faults: list[tuple[str, str, str]],
    numbers: list[int],
) -> None:
    """Stops one run by one fault after the other, and compares its bits in the end."""
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    write(undisturbed, spec)
    done = server.run(*COMMAND, cwd=undisturbed)
    assert done.code == 0, done.err
    disturbed = folder / "disturbed"
    disturbed.mkdir()
    write(disturbed, spec)
    run = disturbed / "run"
    wrong = []
    for place, fault in enumerate(faults):
        number = numbers[place % len(numbers)]
        before = kept(run)
        done, hit = stopped(server, disturbed, fault, number)
        about = f"{errno.errorcode[number]} of {fault[2]} {fault[1]}: {done.code}\n"
        errors = [line for line in done.err.splitlines() if line.startswith("error")]
        if not hit:
            wrong.append(f"{about}never written\n{done.err[-500:]}")
        elif done.code not in (1, 3) or len(errors) != 1 or "Traceback" in done.err:
            wrong.append(f"{about}{done.err[-2000:]}")
        elif fault[0] not in errors[0] and number == errno.EIO:
            wrong.append(f"{about}does not say which file\n{errors[0]}")
        elif not any(why in errors[0] for why in (os.strerror(number).lower(), *SPACE)):
            wrong.append(f"{about}does not say why\n{errors[0]}")
        after = kept(run)
        wrong += [
            f"{about}lost {name}"
            for name, text in before.items()
            if text not in after[name][: len(text)]
        ]
    assert not wrong, "\n\n".join(wrong)
    done = server.run(*COMMAND, cwd=disturbed)
    assert done.code == 0, done.err
    assert results(run) == results(undisturbed / "run")
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    assert len({event["job"] for event in events if event["event"] == "finished"}) == len(
        {event["job"] for event in events}
    )


def test_a_disk_that_is_full_or_broken_costs_nothing_that_is_finished(
    server: Forking, tmp_path: Path
) -> None:
    chain(server, tmp_path, FEW, SOME, [errno.ENOSPC, errno.EIO])


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_the_same_of_all_kinds_of_files(number: int, server: Forking, tmp_path: Path) -> None:
    chain(server, tmp_path, SPEC, ALL, [number])
