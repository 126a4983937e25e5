"""A short run with data, and perhaps its folder, in the bucket of a test's store."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from etude_cli import environment
from stores import Server

SHORT = """
recipe small { seed = 7 }
model tiny { family = llama3, layers = 2, dim = 32, heads = 4, kv_heads = 2, ffn = 64 }
tokenizer words { train = { on [docs], vocab 300 } }
dataset docs { files = "s3://bucket/data/*.jsonl", holdout = 5% }

stage pretrain: train {
  model = tiny, steps = 24, seq_len = 32, batch = 8 seqs, lr = 0 -> 3e-3 for 4 steps then 3e-3
  data = docs, checkpoint every 3 steps
}
stage anneal: train { steps = 4, lr = last -> 0 }
"""
JOBS = ("pretrain.1", "anneal.1")


def documents(number: int) -> bytes:
    """A file of documents."""
    words = [f"{number} is less than {each}, and {each} is more" for each in range(40)]
    return "".join(json.dumps({"text": text}) + "\n" for text in words).encode()


def asking(store: Server, folder: Path, **changes: str) -> dict[str, str]:
    """The environment of a machine with its local folders of stores in `folder`."""
    own = {"ETUDE_STORE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**environment(), **store.environment, **own, **changes}


def steps(store: Server, run: str, job: str) -> list[dict]:
    """The steps of a job that the store has."""
    names = sorted(store.names(f"{run}/metrics/{job}.jsonl.segments/"))
    text = b"".join(map(store.read, names))
    return [json.loads(line) for line in text.splitlines()]


def logged_losses(run: Path, job: str) -> list[float]:
    """The losses of a job in a run folder on this machine."""
    logged = (run / "metrics" / f"{job}.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in logged]


def model(store: Server, run: str, undisturbed: Path) -> bytes:
    """The weights in the store of the export that the undisturbed run has under this key."""
    key = (undisturbed / "models" / "anneal").resolve().name
    return store.read(f"{run}/artifacts/{key}/model.safetensors")


def has_checkpoint(store: Server, run: str, step: int) -> Callable[[], bool]:
    """Whether a checkpoint of at least so many steps is whole in the store."""

    def look() -> bool:
        found = [n for n in store.names(f"{run}/work/") if n.endswith("/checksums.json")]
        return any(int(name.split("/")[-2].removeprefix("step-")) >= step for name in found)

    return look


def wait_for(holds: Callable[[], object]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.02)
