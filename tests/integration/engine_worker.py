"""A process (or a rank under torchrun) that runs jobs of the engine one after the other.

Its argument is a JSON file: {"root", "runs": [{"job", "inputs", "folder", "events",
"kill_at"}]}. At the event of step `kill_at`, or of so many finished items, the process kills
itself. With BACKWARD_ELSEWHERE in the environment, backward runs as on a GPU: in a thread of
autograd's own, unless that is turned off.
"""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from etude.compiler.plan.plan import HeldOutJob, ReferenceJob, ScoreJob, TrainJob
from etude.runtime.engine import forward
from etude.runtime.engine.forward import held_out, reference, score
from etude.runtime.engine.train import train

JOBS: dict[str, tuple[Any, Any]] = {
    "train": (TrainJob, train),
    "reference": (ReferenceJob, reference),
    "score": (ScoreJob, score),
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


def main() -> None:
    if "BACKWARD_ELSEWHERE" in os.environ:
        as_on_a_gpu()
    # Several chunks even of little data.
    forward.CHUNK = 16
    work = json.loads(Path(sys.argv[1]).read_text())
    for item in work["runs"]:
        inputs = {role: Path(path) for role, path in item["inputs"].items()}
        events: list[dict[str, Any]] = []

        def on_event(
            event: dict[str, Any], events: list[dict[str, Any]] = events, at: Any = item["kill_at"]
        ) -> None:
            events.append(event)
            if at in (event.get("step"), event.get("done")) and at is not None:
                os.kill(os.getpid(), signal.SIGKILL)

        kind, run = JOBS[item["job"]["kind"]]
        job = kind.model_validate(item["job"])
        run(job, inputs, Path(item["folder"]), root=Path(work["root"]), on_event=on_event)
        if os.environ["RANK"] == "0":
            Path(item["events"]).write_text(json.dumps(events))


if __name__ == "__main__":
    main()
