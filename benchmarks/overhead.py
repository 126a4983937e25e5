"""What a run costs beside its training: recording a step, the change of jobs, and the start.

    python -m benchmarks.overhead [pairs] [runs]

- Recording: one trainer's steps, in turn with and without everything that a run does with a step:
  the journal of events, the metrics' file and TensorBoard. The ratio is that of the medians of the
  whole time from step to step. Checkpoints are saved in turn with and without checksums; as a share
  of training, at a run's default of one every 20 minutes.
- Between jobs: `etude run` of a stage of three jobs, on one rank and on two. From the end of a
  job's last step to the start of the next one's first.
- Start: `etude run examples/quickstart.etude` in a new folder, until its first step is done. Files
  of installed packages may be in the memory of the system, as after `etude plan`.

Runs alternate. Writes the section "Overhead" of benchmarks/RESULTS.md.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from .results import write_section

ROOT = Path(__file__).parent.parent
ETUDE = str(Path(sys.executable).parent / "etude")
INTERVAL = 20 * 60
"""Seconds between two checkpoints of a run, by default."""
BETWEEN = """recipe between {{ seed = 1 }}
model small {{ layers = 4, dim = 256, heads = 4, ffn = 704, vocab = 2048 }}
tokenizer words {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 2000 docs }}
stage pre: train {{
  model = small, steps = {steps}, batch = 8 seqs, lr = 1e-3, data = sums, export = none
  seq_len = 64 for {first} steps then 128 for {first} steps then 256
}}
"""
RECORDED = """recipe recorded {{ seed = 1 }}
model small {{ layers = {layers}, dim = {dim}, heads = 4, ffn = {ffn}, vocab = 2048 }}
tokenizer words {{ bytes }}
dataset sums {{ sample = arithmetic, documents = 2000 docs }}
stage pre: train {{
  model = small, steps = {steps}, batch = 8 seqs, lr = 1e-3, data = sums, export = none
  seq_len = {seq_len}
}}
"""
Event = dict[str, Any]


def recording(
    folder: Path, pairs: int, *, layers: int = 2, dim: int = 128, seq_len: int = 64
) -> Event:
    """Seconds from step to step with and without records of them, and of saving with and without
    checksums; the MiB of a checkpoint."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as every run does
    from etude.compiler.driver import analyse, compile
    from etude.compiler.plan.plan import TrainJob
    from etude.runtime.engine.device import prepare
    from etude.runtime.run_folder.boards import BOARDS, Boards
    from etude.runtime.run_folder.recorder import Recorder
    from etude.runtime.run_folder.store import Store
    from etude.runtime.scheduler import Scheduler
    from etude.spec.load import reads

    text = RECORDED.format(
        layers=layers, dim=dim, ffn=dim * 11 // 4, steps=2 * pairs + 8, seq_len=seq_len
    )
    made = compile(analyse(reads(text)))
    assert made
    store = Store(folder / "run")
    store.create()
    Scheduler(made.plan, store, folder, prepare=True).run()
    (job,) = (job for job in made.plan.jobs if isinstance(job, TrainJob))
    data = store.events()[-1]["key"]
    prepare("cpu")

    from etude.runtime.engine.process import join
    from etude.runtime.engine.train import make_trainer

    join(1, "cpu")

    recorder = Recorder(store.folder, [Boards(store.folder / BOARDS)])
    seconds: dict[bool, list[float]] = {True: [], False: []}
    last = 0.0

    def on_event(event: Event) -> None:
        """Records every second step; the time of one ends when it is recorded."""
        nonlocal last
        records = event["step"] % 2 == 0
        if records:
            recorder.step(event)
            store.tell(event)
        now = time.perf_counter()
        if event["step"] >= 8:
            seconds[records].append(now - last)
        last = now

    inputs = {"data:sums": store.folder / "artifacts" / data}
    with make_trainer(job, inputs, folder / "job", store.folder, on_event, {}) as trainer:
        trainer.train()
        saved = _saving(trainer, folder, max(pairs // 20, 1))
    recorder.close()
    return {"with": median(seconds[True]), "without": median(seconds[False]), **saved}


def _saving(trainer: Any, folder: Path, pairs: int) -> Event:
    """Seconds of saving a checkpoint with and without checksums, and its MiB."""
    from etude.runtime.engine import checksums

    class NoSum:
        def update(self, data: Any) -> None:
            """Adds nothing."""

        def hexdigest(self) -> str:
            return ""

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * pairs + 1):
        sums = number % 2 == 0
        unsummed = patch.object(checksums.hashlib, "sha256", lambda *_: NoSum())
        begin = time.perf_counter()
        with nullcontext() if sums else unsummed:
            trainer.checkpoints.save_and_wait(number + 1)
        if number:
            seconds[sums].append(time.perf_counter() - begin)
    files = [path.stat().st_size for path in (folder / "job").rglob("*.distcp")]
    size = sum(files) / len([*(folder / "job").rglob("step-*")]) / 2**20
    with_, without = median(seconds[True]), median(seconds[False])
    return {"saving": with_, "saving_without": without, "MiB": size}


def between_jobs(folder: Path, ranks: int, steps: int = 4) -> list[float]:
    """Seconds from a job's last step to the next one's first, for each change of jobs."""
    folder.mkdir(parents=True)
    spec = folder / "between.etude"
    spec.write_text(BETWEEN.format(steps=3 * steps, first=steps))
    command = [ETUDE, "run", str(spec), "--folder", str(folder / "run")]
    command += ["--ranks", str(ranks)] if ranks > 1 else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    told = [event for event in _events(folder / "run") if event["event"] == "step"]
    found = []
    for before, after in pairwise(told):
        if before["job"] != after["job"]:
            found.append(after["time"] - after["seconds"] - before["time"])
    return found


def start(folder: Path) -> dict[str, float]:
    """Seconds from the command to what it reaches: the first job, a finished tokenizer, data, the
    trainer, and the first step."""
    command = [ETUDE, "run", str(ROOT / "examples" / "quickstart.etude"), "--folder", str(folder)]
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(event["event"] == "step" for event in _events(folder)):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} has ended with {process.returncode}")
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    moments: dict[str, float] = {}
    for event in _events(folder):
        kind = event.get("kind")
        match event["event"]:
            case "started":
                moments.setdefault("command, plan and preflight", event["time"])
                if kind == "train":
                    moments.setdefault("what imports still take", event["time"])
            case "finished" if kind in ("tokenizer", "dataset"):
                moments[f"{kind}"] = event["time"]
            case "step":
                moments.setdefault("trainer and first step", event["time"])
    ordered = sorted(moments.items(), key=lambda moment: moment[1])
    ends = [began, *(at for _, at in ordered)]
    return {name: at - ends[place] for place, (name, at) in enumerate(ordered)}


def _events(folder: Path) -> list[Event]:
    path = folder / "events.jsonl"
    if not path.exists():
        return []
    return [
        json.loads(line) for line in path.read_text().splitlines(keepends=True) if line[-1:] == "\n"
    ]


def main(pairs: int = 150, runs: int = 3) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        starts, gaps = [], {1: [], 2: []}
        for run in range(runs):
            starts.append(start(folder / f"start{run}"))
            for ranks in gaps:
                gaps[ranks] += between_jobs(folder / f"between{run}.{ranks}", ranks)
        told = recording(folder / "recording", pairs)
    write_section("Overhead", table(told, gaps, starts, pairs, runs))


def table(
    told: Event, gaps: dict[int, list[float]], starts: list[dict[str, float]], pairs: int, runs: int
) -> str:
    """The section of the results; arguments as `main` measures them."""
    more = told["with"] - told["without"]
    sums = told["saving"] - told["saving_without"]
    rows = [
        ("a step without records, ms", 1000 * told["without"], ""),
        ("records of a step, ms", 1000 * more, ""),
        ("records, % of a step", 100 * more / told["without"], "< 2"),
        (f"checksums of a checkpoint of {told['MiB']:.0f} MiB, ms", 1000 * sums, ""),
        ("checksums, % of 20 minutes", 100 * sums / INTERVAL, "< 2"),
    ]
    rows += [
        (f"between two jobs on {ranks} rank{'s' * (ranks > 1)}, s", median(found), "< 1")
        for ranks, found in gaps.items()
    ]
    names = list(starts[0])
    rows += [(f"start: {name}, s", median(each[name] for each in starts), "") for name in names]
    whole = median(sum(each.values()) for each in starts)
    rows.append(("from the command to the first step, s", whole, "< 15"))
    lines = "\n".join(f"| {name} | {value:.3g} | {target} |" for name, value, target in rows)
    load = os.getloadavg()[0]
    return (
        f"`python -m benchmarks.overhead {pairs} {runs}` on {platform.machine()}, Python "
        f"{platform.python_version()}, torch {version('torch')}, torchtitan "
        f"{version('torchtitan')}; {pairs} pairs of steps, {runs} runs; medians. Load average "
        f"{load:.1f} on {os.cpu_count()} cores.\n\n"
        "| | | target |\n| --- | ---: | ---: |\n"
        f"{lines}\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
