"""Runs the command line as a user does: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forking import shared

COMMAND = [sys.executable, "-m", "etude.cli.main"]
TINY = """
recipe tiny { title = "A recipe for tests", seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs, sums], vocab 300 } }
dataset docs { sample = python_docs, documents = 60 docs, holdout = 5% }
dataset sums { sample = arithmetic, documents = 200 docs, holdout = 5% }

stage pretrain: train {
  model   = tiny
  steps   = 24
  seq_len = 32 for 8 steps then 64
  batch   = 8 seqs -> 16 seqs for 6 steps then 16 seqs
  lr      = 0 -> 3e-3 for 4 steps then -> 3e-4 cosine
  data    = { docs 80%, sums 20% } -> { docs 50%, sums 50% } for 12 steps
            then { docs 50%, sums 50% }
  parallel = { micro_batch 4 }
  checkpoint every 3 steps
}

stage anneal: train {
  steps   = 6
  lr      = last -> 0
  average = polyak every 2 steps over 50%
}

stage report: evaluate { loss = [docs, sums] }
"""


def environment() -> dict[str, str]:
    """An environment in which a user starts a command on one machine."""
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ETUDE_ALONE")
    return {name: value for name, value in os.environ.items() if name not in ranks}


def etude(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its output is captured.

    Runs on one machine, without variables of their own, do not import torch again.
    """
    if arguments[0] == "run" and options.keys() <= {"timeout"}:
        done = shared().run(*map(str, arguments), cwd=cwd)
        return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)
    return started(*arguments, cwd=cwd, **options)


def started(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, as the shell starts it."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        **{
            "cwd": cwd,
            "env": environment(),
            "text": True,
            "capture_output": True,
            "timeout": 600,
            **options,
        },
    )


def kill_when(
    condition: Callable[[], bool],
    *arguments: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
) -> None:
    """Starts a command and kills it and everything it has started once the condition holds."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def metrics(folder: Path, job: str) -> list[dict[str, Any]]:
    path = folder / "metrics" / f"{job}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(folder: Path, job: str) -> int:
    path = folder / "metrics" / f"{job}.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def weights(folder: Path, stage: str) -> bytes:
    return (folder / "models" / stage / "model.safetensors").read_bytes()
