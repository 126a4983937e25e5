"""A rank, alone or of several, that runs jobs of the engine one after the other.

Its argument is a JSON file: {"root", "runs": [{"job", "inputs", "folder", "events",
"kill_at", "spoil"}]}. At the event of step `kill_at`, or of so many finished items, the process
kills itself, once the last checkpoint before it is whole; the data of the steps in `spoil` make
gradients far too large. With BACKWARD_ELSEWHERE in the environment,
backward runs as on a GPU: in a thread of autograd's own, unless that is turned off.
"""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from etude.compiler.plan.plan import HeldOutJob, ReferenceJob, ScoreJob, TeacherJob, TrainJob
from etude.runtime.engine.measures import walk
from etude.runtime.engine.measures.forward import held_out, reference, score
from etude.runtime.engine.measures.teaching import teach
from etude.runtime.engine.train import train

JOBS: dict[str, tuple[Any, Any]] = {
    "train": (TrainJob, train),
    "reference": (ReferenceJob, reference),
    "score": (ScoreJob, score),
    "teacher": (TeacherJob, teach),
    "heldout": (HeldOutJob, held_out),
}


def as_on_a_gpu() -> None:
    """Has backward run in another thread, unless autograd is told to have none."""
    backward = torch.Tensor.backward

    def elsewhere(*arguments: Any, **options: Any) -> None:
        if not torch._C._is_multithreading_enabled():
            return backward(*arguments, **options)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(backward, *arguments, **options).result()

    torch.Tensor.backward = elsewhere  # type: ignore[method-assign]


def await_checkpoint(job: Any, folder: Path, at: int) -> None:
    """Waits for the last checkpoint before a step: others write it while training goes on."""
    every = job.saving.every if isinstance(job, TrainJob) else None
    last = folder / "checkpoints" / f"step-{at // every * every}" if every and at >= every else None
    for _ in range(1000):
        if last is None or (last / ".metadata").is_file():
            return
        time.sleep(0.05)
    raise TimeoutError(f"{last} is not whole after 50 seconds")


def run_item(item: dict[str, Any], root: Path) -> None:
    """Runs one job, and writes its events unless it is killed."""
    inputs = {role: Path(path) for role, path in item["inputs"].items()}
    folder, at = Path(item["folder"]), item["kill_at"]
    events: list[dict[str, Any]] = []
    kind, run = JOBS[item["job"]["kind"]]
    job = kind.model_validate(item["job"])

    def on_event(event: dict[str, Any]) -> None:
        events.append(event)
        if at in (event.get("step"), event.get("done")) and at is not None:
            await_checkpoint(job, folder, at)
            os.kill(os.getpid(), signal.SIGKILL)

    if item["spoil"]:
        from engine_jobs import Trainer, spoiled

        Trainer.forward_backward_step = spoiled(job, item["spoil"])  # type: ignore[method-assign]
    run(job, inputs, folder, root=root, on_event=on_event)
    if os.environ["RANK"] == "0":
        Path(item["events"]).write_text(json.dumps(events))


def main() -> None:
    if "BACKWARD_ELSEWHERE" in os.environ:
        as_on_a_gpu()
    # Several chunks even of little data.
    walk.CHUNK = 16
    work = json.loads(Path(sys.argv[1]).read_text())
    for item in work["runs"]:
        run_item(item, Path(work["root"]))


if __name__ == "__main__":
    main()
