"""A process (or a rank under torchrun) that runs train jobs one after the other.

Its argument is a JSON file: {"root", "runs": [{"job", "inputs", "folder", "events",
"kill_at"}]}. At the event of step `kill_at` the process kills itself.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from etude.compiler.plan import TrainJob
from etude.runtime.engine.train import train


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    for item in work["runs"]:
        inputs = {role: Path(path) for role, path in item["inputs"].items()}
        events: list[dict[str, Any]] = []

        def on_event(
            event: dict[str, Any], events: list[dict[str, Any]] = events, at: Any = item["kill_at"]
        ) -> None:
            events.append(event)
            if event["step"] == at:
                os.kill(os.getpid(), signal.SIGKILL)

        job = TrainJob.model_validate(item["job"])
        train(job, inputs, Path(item["folder"]), root=Path(work["root"]), on_event=on_event)
        if os.environ["RANK"] == "0":
            Path(item["events"]).write_text(json.dumps(events))


if __name__ == "__main__":
    main()
