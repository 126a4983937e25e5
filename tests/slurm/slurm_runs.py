"""Runs on a virtual cluster, launched as a user launches them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from virtual import Cluster, missing

COMMAND = [sys.executable, "-m", "etude.cli.main"]
PAIR = "cluster pair { nodes = 2, cpus = 1 }\n"
SMALL = (
    """
recipe small { seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [sums], vocab 300 } }
dataset sums { sample = arithmetic, documents = 200 docs, holdout = 5% }
stage pretrain: train {
  model   = tiny
  steps   = 60
  seq_len = 32
  batch   = 8 seqs
  lr      = 0 -> 3e-3 for 4 steps then -> 3e-4 cosine
  data    = sums
  checkpoint every 5 steps
}
"""
    + PAIR
)
"""Three phases: data, training on both nodes, the export."""
ENDED_BADLY = {"FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL"}

needs_slurm = pytest.mark.skipif(
    bool(missing()) and not os.environ.get("ETUDE_NEEDS_SLURM"), reason=missing()
)


class Runs:
    """Launches runs on a cluster, and watches them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # A thread a rank, as on the nodes, whatever machine this is.
        self.environment = {**cluster.environment, "OMP_NUM_THREADS": "1"}

    def etude(
        self, *arguments: str | Path, cwd: Path, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """A command of a user of the cluster, to its end."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            **{
                "cwd": cwd,
                "env": self.environment,
                "text": True,
                "capture_output": True,
                "timeout": 600,
                **options,
            },
        )

    def launch(self, folder: Path, text: str = SMALL, *options: str) -> Path:
        """Launches a spec; returns the run folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "r.etude").write_text(text)
        words = ("launch", "r.etude", "--on", "slurm", "--submit", "--json", *options)
        done = self.etude(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
        return Path(json.loads(done.stdout)["folder"])

    def jobs(self, run: Path) -> dict[str, str]:
        """Phase → job, of the last launch."""
        queued = json.loads((run / "launch.json").read_text())["queued"]
        return dict(zip(queued["phases"], queued["jobs"], strict=True))

    def finish(self, run: Path, seconds: float = 900) -> None:
        """Waits until all jobs of a run have ended well; fails as soon as one has not."""
        jobs = self.jobs(run)

        def done() -> bool:
            states = self.cluster.states()
            for phase, job in jobs.items():
                assert states[job] not in ENDED_BADLY, f"{phase}: {states[job]}\n{self.logs(run)}"
            return all(states[job] == "COMPLETED" for job in jobs.values())

        self.wait(done, run, "done", seconds)

    def wait(
        self, condition: Callable[[], object], run: Path, what: str, seconds: float = 300
    ) -> None:
        """Waits for something to become true of a run."""
        try:
            self.cluster.wait(condition, what, seconds)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.logs(run)}") from None

    def restarts(self, job: str) -> int:
        """How often a job was queued again."""
        (found,) = [
            part
            for part in self.cluster.run("scontrol", "show", "job", job).split()
            if part.startswith("Restarts=")
        ]
        return int(found.partition("=")[2])

    def waits_for(self, job: str) -> set[str]:
        """The jobs that a job still waits for."""
        command = ("squeue", "--job", job, "--states=all", "--noheader", "--format=%E")
        return set(re.findall(r"afterok:(\d+)", self.cluster.run(*command)))

    def nodes(self, job: str) -> list[str]:
        """The nodes that a job has, or had last."""
        command = ("squeue", "--job", job, "--states=all", "--noheader", "--format=%N")
        listed = self.cluster.run(*command).strip()
        return self.cluster.run("scontrol", "show", "hostnames", listed).split()

    def rank(self, run: Path, rank: int) -> int:
        """The process that is a rank of a run."""
        (found,) = [
            process.pid
            for process in self.cluster.processes()
            if process.environment.get("SLURM_PROCID") == str(rank)
            and str(run) in process.command
            and "etude.runtime.worker" in process.command
        ]
        return found

    def logs(self, run: Path) -> str:
        """The ends of a run's logs."""
        logs = sorted((run / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)


def steps(run: Path, job: str = "pretrain.1") -> int:
    """How many steps of a job there are figures of."""
    path = run / "metrics" / f"{job}.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def figures(run: Path, job: str = "pretrain.1") -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of every step, in order."""
    lines = (run / "metrics" / f"{job}.jsonl").read_text().splitlines()
    return [(e["step"], e["loss"], e["grad_norm"]) for e in map(json.loads, lines)]


def weights(run: Path, stage: str = "pretrain") -> bytes:
    return (run / "models" / stage / "model.safetensors").read_bytes()
