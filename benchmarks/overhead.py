"""What a run costs beside its training: recording a step, the change of jobs, and the start.

    python -m benchmarks.overhead [pairs] [runs]
    python -m benchmarks.overhead trackers [rounds]

- Recording: one trainer's steps, in turn with and without everything that a run does with a step:
  the journal of events, the metrics' file and TensorBoard. The ratio is that of the medians of the
  whole time from step to step.
- Trackers: one trainer's steps, in turn without records, with the journal and the metrics' file
  alone, and with each tracker besides: TensorBoard, W&B offline, MLflow with its database in the
  run folder, Trackio on this machine. Medians over steps, and the processor time that a step's
  records take in all threads of the process, without training.
- Checkpoints are saved in turn with and without checksums; as a share of training, at a run's
  default of one every 20 minutes.
- Between jobs: `etude run` of a stage of three jobs, on one rank and on two. From the end of a
  job's last step to the start of the next one's first.
- Start: `etude run examples/quickstart.etude` in a new folder, until its first step is done. Files
  of installed packages may be in the memory of the system, as after `etude plan`.

Runs alternate. Writes the sections "Overhead" and "Overhead of trackers" of benchmarks/RESULTS.md.
"""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from .results import write_section

if TYPE_CHECKING:
    from etude.compiler.plan.plan import Plan
    from etude.runtime.run_folder.store import Store

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
TRACKERS = {
    "TensorBoard": "tensorboard",
    "W&B, offline": "wandb",
    "MLflow, database": "mlflow",
    "Trackio, local": "trackio",
}
WARM = 4
"""Steps of each kind that are not measured."""
STEP: Event = {
    **{"event": "step", "job": "pre.1", "stage": "pre", "loss": 3.0, "lr": 1e-3, "grad_norm": 0.5},
    **{"sequences": 8, "seq_len": 64, "mixture": {"sums": 1}, "sources": {"sums": 512}},
    **{"tokens_per_second": 1000.0, "seconds": 0.5, "data_seconds": 0.01},
}


@contextmanager
def _training(
    folder: Path, steps: int, on_event: Callable[[Event], None], **shape: int
) -> Iterator[tuple[Any, "Store", "Plan"]]:
    """A trainer of so many steps, with the store and the plan of its run."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as every run does
    from etude.compiler.driver import analyse, compile
    from etude.compiler.plan.plan import TrainJob
    from etude.runtime.engine.device import prepare
    from etude.runtime.run_folder.store import Store
    from etude.runtime.scheduler import Scheduler
    from etude.spec.load import reads

    shape = {"layers": 2, "dim": 128, "seq_len": 64} | shape
    text = RECORDED.format(steps=steps, ffn=shape["dim"] * 11 // 4, **shape)
    made = compile(analyse(reads(text)))
    assert made
    store = Store(folder / "run")
    store.create()
    Scheduler(made.plan, store, folder, prepare=True).run()
    (job,) = (job for job in made.plan.jobs if isinstance(job, TrainJob))
    inputs = {"data:sums": store.folder / "artifacts" / store.events()[-1]["key"]}
    prepare("cpu")

    from etude.runtime.engine.process import join
    from etude.runtime.engine.train import make_trainer

    join(1, "cpu")
    with make_trainer(job, inputs, folder / "job", store.folder, on_event, {}) as trainer:
        yield trainer, store, made.plan


class _InTurn:
    """Takes the events of steps, and gives each step's records in turn to one of several, which
    are measured from the end of a step's records to the next.

    Args:
        records: name → what is done with an event.
    """

    def __init__(self, records: Mapping[str, Callable[[Event], Any]]) -> None:
        self._records = dict(records)
        self.seconds: dict[str, list[float]] = {name: [] for name in records}
        self.own: dict[str, list[float]] = {name: [] for name in records}
        """Of these, how long the records held training."""
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        name = list(self._records)[event["step"] % len(self._records)]
        begun = time.perf_counter()
        self._records[name](event)
        now = time.perf_counter()
        if event["step"] >= WARM * len(self._records):
            self.seconds[name].append(now - self._last)
            self.own[name].append(now - begun)
        self._last = now


def recording(folder: Path, pairs: int, **shape: int) -> Event:
    """Seconds from step to step with and without records of them, and of saving with and without
    checksums; the MiB of a checkpoint."""
    turns: list[_InTurn] = []
    steps = 2 * (pairs + WARM)
    with _training(folder, steps, lambda event: turns[0](event), **shape) as (trainer, store, _):
        from etude.runtime.run_folder.boards import BOARDS, Boards
        from etude.runtime.run_folder.recorder import Recorder

        recorder = Recorder(store.folder, [Boards(store.folder / BOARDS)])

        def record(event: Event) -> None:
            recorder.step(event)
            store.tell(event)

        turns.append(_InTurn({"without": lambda event: None, "with": record}))
        trainer.train()
        saved = _saving(trainer, folder, max(pairs // 20, 1))
        recorder.close()
    return {name: median(found) for name, found in turns[0].seconds.items()} | saved


def tracking(folder: Path, rounds: int, **shape: int) -> dict[str, Event]:
    """What each tracker costs: `step` and `own`, the medians of the seconds from step to step and
    of those in which records held training, and `processor`, seconds of the processor that a step's
    records take in all threads."""
    turns: list[_InTurn] = []
    steps = (len(TRACKERS) + 2) * (rounds + WARM)
    with _training(folder, steps, lambda event: turns[0](event), **shape) as (trainer, store, plan):
        recorders = {"the journal and metrics alone": []} | {
            name: [_tracker(kind, plan, store.folder)] for name, kind in TRACKERS.items()
        }
        records: dict[str, Callable[[Event], Any]] = {"nothing": lambda event: None}
        closing = []
        for name, loggers in recorders.items():
            records[name], close = _recording(store, folder / name, loggers)
            closing.append(close)
        turns.append(_InTurn(records))
        trainer.train()
        found = {
            name: {"step": median(of), "own": median(turns[0].own[name])}
            for name, of in turns[0].seconds.items()
        }
        for close in closing:
            close()
    for name, kind in [("the journal and metrics alone", ""), *TRACKERS.items()]:
        found[name]["processor"] = _processor(store, plan, folder / f"{name} by itself", kind)
    return found


def _tracker(kind: str, plan: "Plan", folder: Path) -> Any:
    from etude.compiler.plan.summary import Tracker
    from etude.runtime.run_folder.boards import BOARDS, Boards
    from etude.runtime.run_folder.trackers import KINDS

    if kind == "tensorboard":
        return Boards(folder / BOARDS)
    return KINDS[kind](plan, Tracker(kind=kind), folder)


def _recording(
    store: "Store", folder: Path, loggers: list[Any]
) -> tuple[Callable[[Event], None], Callable[[], None]]:
    """What records a step with these trackers, and what ends that."""
    from etude.runtime.run_folder.recorder import Recorder

    (folder / "metrics").mkdir(parents=True)
    failed: list[Event] = []
    recorder = Recorder(folder, loggers, failed.append)

    def record(event: Event) -> None:
        recorder.step(event)
        store.tell(event)

    def close() -> None:
        recorder.close()
        if failed:
            raise RuntimeError(failed[0]["message"])

    return record, close


def _processor(store: "Store", plan: "Plan", folder: Path, kind: str, steps: int = 200) -> float:
    """Seconds of the processor for the records of a step, of 200 within ten seconds."""
    folder.mkdir()
    loggers = [_tracker(kind, plan, folder)] if kind else []
    record, close = _recording(store, folder, loggers)
    event = {**STEP, "step": 0, "tokens": 0}
    record(event)  # connects
    begun = time.process_time()
    for step in range(1, steps + 1):
        record(event | {"step": step, "tokens": 512 * step})
        time.sleep(10 / steps)
    close()
    return (time.process_time() - begun) / steps


def _saving(trainer: Any, folder: Path, pairs: int) -> Event:
    """Seconds of saving a checkpoint with and without checksums, and its MiB."""
    from etude.runtime.engine.checkpoints import checksums

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


def start(folder: Path) -> tuple[dict[str, float], float]:
    """Seconds from the command to what it reaches: the first job, a finished tokenizer, data, the
    trainer, and the first step; and the seconds of processors until then, in Linux (else nan),
    which other work on the machine does not stretch."""
    command = [ETUDE, "run", str(ROOT / "examples" / "quickstart.etude"), "--folder", str(folder)]
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(event["event"] == "step" for event in _events(folder)):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} has ended with {process.returncode}")
            time.sleep(0.02)
        processor = _processor_of(process.pid)
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
    return {name: at - ends[place] for place, (name, at) in enumerate(ordered)}, processor


def _processor_of(process: int) -> float:
    """Seconds of processors that a process and its ended children have taken so far, in Linux."""
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return math.nan
    return sum(map(int, told.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


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
    told: Event,
    gaps: dict[int, list[float]],
    starts: list[tuple[dict[str, float], float]],
    pairs: int,
    runs: int,
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
    parts = [moments for moments, _ in starts]
    rows += [(f"start: {name}, s", median(each[name] for each in parts), "") for name in parts[0]]
    whole = median(sum(each.values()) for each in parts)
    rows.append(("from the command to the first step, s", whole, "< 15"))
    rows.append(("the same in seconds of processors", median(each for _, each in starts), ""))
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


def trackers(rounds: int = 150) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACKIO_DIR"] = folder
        told = tracking(Path(folder) / "tracking", rounds)
    write_section("Overhead of trackers", trackers_table(told, rounds))


def trackers_table(told: dict[str, Event], rounds: int) -> str:
    """The section of the results, from what `tracking` has measured."""
    plain = told["nothing"]["step"]
    rows = [
        f"| {name} | {1000 * of['step']:.1f} | {1000 * of['own']:.2f} | "
        f"{100 * of['own'] / plain:.2f} | {1000 * of['processor']:.2f} |"
        for name, of in told.items()
        if name != "nothing"
    ]
    names = ("torch", "torchtitan", "tensorboard", "wandb", "trackio", "mlflow-skinny")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"`python -m benchmarks.overhead trackers {rounds}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {libraries}; medians of {rounds} steps each, in turn. Load "
        f"average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. A step without records takes "
        f"{1000 * plain:.1f} ms. W&B's own process is not counted in processor time.\n\n"
        "| records | step, ms | of these, records hold training for, ms | % of a step (< 2) | "
        "processor time of a step's records, ms |\n"
        "| --- | ---: | ---: | ---: | ---: |\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["trackers"]:
        trackers(*map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
