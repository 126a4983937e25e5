"""Averaging checkpoints compared with mergekit: the mean of three models, time and peak memory.

    python -m benchmarks.averaging [repeats]

Both average the same weights in float32: etude three checkpoints of its trainer, mergekit
(`linear`) the same three as safetensors. Each runs in its own process, with two threads, one after
the other. Memory is the peak resident set minus that of the same process just before it begins.
Writes the section "Averaging" of benchmarks/RESULTS.md.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from .results import write_section

MODELS = 3
SHAPE: dict[str, Any] = {
    "family": "llama3",
    "size": None,
    "layers": 8,
    "dim": 1024,
    "heads": 16,
    "kv_heads": 16,
    "head_dim": 64,
    "ffn": 2816,
    "vocab": 16_384,
    "context": 512,
    "rope_theta": 10_000.0,
    "rope_scaling": "none",
    "rope_factor": 1.0,
    "rope_original": 0,
    "tied": False,
    "norm_eps": 1e-5,
    "qk_norm": False,
    "biased": False,
    "sinks": False,
    "window": 0,
    "latent": None,
    "experts": None,
}


def make_models(folder: Path) -> dict[str, float]:
    """Random models, as checkpoints (`of.N/state`) and as Hugging Face folders (`hf.N`)."""
    import torch
    from torch.distributed.checkpoint.state_dict_saver import save

    from etude.compiler.plan.plan import ExportJob
    from etude.compiler.values import Architecture
    from etude.runtime.data.tokens import tokenizer
    from etude.runtime.engine.device import prepare
    from etude.runtime.engine.weights.export import export

    prepare("cpu")
    from etude.runtime.engine.families import model_spec

    shape = Architecture(**SHAPE)
    tokenizer.save(tokenizer.byte_level(), folder / "tokenizer")
    largest = total = 0
    for number in range(MODELS):
        torch.manual_seed(number)
        model: Any = model_spec(shape, "cpu", shape.context).model.build()
        model.init_states(buffer_device=torch.device("cpu"))
        state = dict(model.state_dict())
        save(state, checkpoint_id=folder / f"of.{number}" / "state", no_dist=True)
        largest = max(tensor.nbytes for tensor in state.values())
        total = sum(tensor.nbytes for tensor in state.values())
        job = ExportJob(key="x", id="x", stage="x", inputs={}, model=shape)
        inputs = {"model": folder / f"of.{number}", "tokenizer": folder / "tokenizer"}
        export(job, inputs, folder / f"export.{number}")
        (folder / f"hf.{number}").symlink_to(folder / f"export.{number}" / "result")
    return {"largest": largest / 2**20, "total": total / 2**20}


def run_etude(folder: Path) -> dict[str, float]:
    from etude.compiler.plan.plan import AverageJob
    from etude.compiler.values import Architecture
    from etude.runtime.engine.weights.mean import average

    inputs = {f"of.{n}": folder / f"of.{n}" for n in range(MODELS)}
    weights = [f"1/{MODELS}"] * MODELS
    job = AverageJob(
        key="x", id="x", stage="x", inputs={}, model=Architecture(**SHAPE), weights=weights
    )
    return _measured(lambda: average(job, inputs, folder / "ours"))


def run_mergekit(folder: Path) -> dict[str, float]:
    # Not a dependency of etude: `pip install mergekit`.
    config_module: Any = import_module("mergekit.config")
    merge: Any = import_module("mergekit.merge")
    models = [
        {"model": str(folder / f"hf.{n}"), "parameters": {"weight": 1.0}} for n in range(MODELS)
    ]
    config = {"models": models, "merge_method": "linear", "dtype": "float32"}
    parsed = config_module.MergeConfiguration.model_validate(config)
    options = merge.MergeOptions(lazy_unpickle=True, copy_tokenizer=False, quiet=True)
    return _measured(lambda: merge.run_merge(parsed, str(folder / "theirs"), options=options))


def _measured(work: Any) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "MiB": (after - before) / 1024}


def main(repeats: int) -> None:
    found: dict[str, list[dict[str, float]]] = {"etude": [], "mergekit": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = _run("models", folder)
        for _ in range(repeats):
            for who in found:
                for made in ("ours", "theirs"):
                    subprocess.run(["rm", "-rf", str(folder / made)], check=True)
                found[who].append(_run(who, folder))
    rows = []
    for figure in ("seconds", "MiB"):
        ours, theirs = (median(run[figure] for run in found[who]) for who in found)
        rows.append(f"| {figure} | {ours:.2f} | {theirs:.2f} | {ours / max(theirs, 1e-9):.2f} |")
    versions = ", ".join(f"{n} {version(n)}" for n in ("torch", "mergekit", "safetensors"))
    write_section(
        "Averaging",
        f"`python -m benchmarks.averaging {repeats}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}; {MODELS} models of {size['total']:.0f} MiB, "
        f"largest tensor {size['largest']:.0f} MiB; medians of {repeats} runs.\n\n"
        "| | etude | mergekit | ratio |\n| --- | --- | --- | --- |\n" + "\n".join(rows),
    )


def _run(who: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.averaging", who, str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout.splitlines()[-1])


if __name__ == "__main__":
    RUNS = {"models": make_models, "etude": run_etude, "mergekit": run_mergekit}
    if len(sys.argv) > 2:
        print(json.dumps(RUNS[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
