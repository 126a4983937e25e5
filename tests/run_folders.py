"""Run folders of small specs as runs leave them, without training anything."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from specs import plan

from etude.compiler.plan.plan import Plan, TrainJob
from etude.runtime.run_folder import lease
from etude.runtime.run_folder.saved import SUMS
from etude.runtime.run_folder.store import EVENTS, Store

SPEC = """recipe small { seed = 1 }
model tiny { layers = 1, dim = 32, heads = 2, ffn = 64, vocab = 300 }
tokenizer letters { bytes }
dataset sums { sample = arithmetic, documents = 20 docs }
stage pre: train {
  model = tiny, steps = 100, seq_len = 64, batch = 4 seqs, lr = 1e-3, data = sums
}
stage post: train { steps = 50 }
"""


class Folder:
    """A run folder in which jobs begin and end as it is told."""

    def __init__(self, path: Path) -> None:
        self.plan: Plan = plan(SPEC)
        self.path = path
        self.store = Store(path)
        self.store.create()
        (path / "plan.json").write_text(self.plan.to_json())

    def job(self, name: str) -> Any:
        return next(job for job in self.plan.jobs if job.id == name)

    def begin(self, name: str) -> None:
        job = self.job(name)
        self.store.record(name, job.key, "started", {"plan": job.key})

    def finish(self, *names: str) -> None:
        for name in names:
            job = self.job(name)
            (self.path / "artifacts" / job.key).mkdir(exist_ok=True)
            for event in ("started", "finished"):
                self.store.record(name, job.key, event, {"plan": job.key})

    def finish_all(self) -> None:
        self.finish(*(job.id for job in self.plan.jobs))

    def train(self, name: str, steps: int, seconds: float) -> None:
        """Steps of a train job, each of which takes so long; the last has just been made."""
        job = self.job(name)
        assert isinstance(job, TrainJob)
        now = time.time()
        told = []
        for step in range(steps):
            told.append(
                {
                    "event": "step",
                    "job": name,
                    "step": job.first_step + step,
                    "loss": 3.0 - step / 100,
                    "lr": 1e-3,
                    "grad_norm": 0.5,
                    "sequences": 4,
                    "seq_len": 64,
                    "tokens_per_second": 4 * 64 / seconds,
                    "time": now - (steps - 1 - step) * seconds,
                }
            )
        text = "".join(json.dumps(event) + "\n" for event in told)
        (self.path / "metrics" / f"{name}.jsonl").write_text(text)
        with (self.path / EVENTS).open("a") as file:
            file.write(text)

    def save(self, name: str, step: int, *, complete: bool = True) -> None:
        """A checkpoint after so many steps of a job."""
        folder = self.store.work(self.job(name).key) / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        if complete:
            (folder / SUMS).touch()

    def owned(self, *, host: str | None = None, process: int = 0, beat: float = 0.0) -> None:
        """The lease of a process, of this one where none is named.

        Args:
            beat: seconds since its last sign of life.
        """
        own = lease.Lease(self.path)
        own.take()
        there = json.loads((self.path / lease.LEASE).read_bytes())
        own.release()
        if host:
            there["host"] = host
        if process:
            there["processes"] = [{"pid": process, "started": "1"}]
        (self.path / lease.LEASE).write_text(json.dumps(there))
        os.utime(self.path / lease.LEASE, (time.time(), time.time() - beat))


def here() -> str:
    """This host, as leases name it."""
    return socket.gethostname()
