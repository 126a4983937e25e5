"""A step of pre-training: etude, torchtitan's own trainer, and a plain loop of transformers.

    python -m benchmarks.training_step [ROUNDS] [--device cuda]

On CPUs, a Llama of 4 layers, 256 wide, vocabulary 2048, 8 rows of 512 tokens a step, fp32, AdamW,
clipped gradients. All sides train in one process, a step each in turn; figures are medians, and the
ratio is that of medians. On two ranks, each process has one thread.

- etude: a train job as `etude run` has it, its journal and metrics left out.
- torchtitan: its Trainer and its loop on the same model, with what a CPU needs: no compiler, no
  recomputation, the sum of gradients that gloo can compute, and torchtitan's SDPA in place of
  FlexAttention, which has no backward pass there. Its rows come from memory.
- a plain loop: transformers' Llama with SDPA, torch's fused AdamW, DistributedDataParallel on two
  ranks, rows from memory.

Attention of the last two is causal over whole rows. Etude's rows are cut from documents of 4096
tokens, which do not see each other. Writes the section "Training step" of benchmarks/RESULTS.md.

On a GPU (`--device cuda`), etude and torchtitan, with four layers as Llama 3 8B has them, a row of
8,192 tokens a step, in bf16, compiled, without recomputation. Both have documents of 4096 tokens
and FlexAttention; by its default, etude's kernels are deterministic (`debug`). The GPU has done a
step before its time ends. The section is "Training step on a GPU". Each side's weights, gradients
and moments take 18 GB: 1.14 B parameters, 16 bytes each.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

from .results import write_section

WARM = 3
"""Rounds at the beginning that are not measured."""
DOCUMENT = 4096
"""Tokens of each document."""
SIDES = {"cpu": ("etude", "torchtitan", "plain loop"), "cuda": ("etude", "torchtitan")}
"""Device → what is compared on it, etude first."""
GPU = "H100 80GB"
"""What the plan takes a GPU for; a step does not depend on it."""
SPEC = """recipe bench {{ seed = 1 }}
model small {{
  layers = {layers}, dim = {dim}, heads = {heads}, kv_heads = {kv_heads}, ffn = {ffn}
  vocab = {vocab}
}}
tokenizer words {{ bytes }}
dataset noise {{ sample = arithmetic, documents = 100 docs }}
stage pre: train {{
  model = small, steps = {steps}, batch = {rows} seqs, seq_len = {seq_len}, lr = 1e-3, data = noise
  export = none
{also}}}
"""
ON_GPUS = """  recompute = none, parallel = {{ shard {ranks} }}
}}
cluster here {{ nodes = 1, gpus = {ranks} of "{gpu}" """
"""What a stage on GPUs has besides, and where."""


@dataclass(frozen=True)
class Shape:
    """A model, and the rows of a step."""

    layers: int = 4
    dim: int = 256
    heads: int = 4
    kv_heads: int = 4
    ffn: int = 704
    vocab: int = 2048
    rows: int = 8
    seq_len: int = 512


SHAPES = {
    "cpu": Shape(),
    "cuda": Shape(4, 4096, 32, 8, ffn=14336, vocab=32768, rows=1, seq_len=8192),
}


def documents(folder: Path, shape: Shape, tokens: int) -> None:
    """Shards of random tokens."""
    from etude.runtime.data.tokens.shards import SUMMARY, write_splits
    from etude.runtime.data.tokens.split_writer import Batch

    count = -(-tokens // DOCUMENT)
    drawn = np.random.default_rng(1).integers(0, shape.vocab, count * DOCUMENT).astype("<u2")
    write_splits(
        [Batch(drawn, np.full(count, DOCUMENT, np.int64))],
        folder,
        SUMMARY,
        dtype=np.dtype("<u2"),
        holdout=Fraction(0),
        seed=1,
        name="noise",
        extra=lambda: {"vocab": shape.vocab, "bos": None, "eos": 0},
    )


def job_of(shape: Shape, ranks: int, steps: int, device: str = "cpu") -> Any:
    """The train job as etude plans it."""
    from etude.compiler.driver import analyse, compile
    from etude.compiler.plan.plan import TrainJob
    from etude.spec.load import reads

    also = ON_GPUS.format(ranks=ranks, gpu=GPU) if device == "cuda" else ""
    spec = SPEC.format(**vars(shape), steps=steps, also=also)
    # On GPUs the spec says how many.
    made = compile(analyse(reads(spec), ranks=ranks if device == "cpu" else None))
    assert made
    (job,) = (job for job in made.plan.jobs if isinstance(job, TrainJob))
    return job


def loop(trainer: Any) -> Callable[[], None]:
    """A function that does what torchtitan's loop does for a step."""
    trainer.checkpointer.load(step=-1)
    data = trainer.batch_generator(trainer.dataloader)

    def step() -> None:
        trainer.step += 1
        trainer.gc_handler.run(trainer.step)
        trainer.train_step(data)
        trainer.checkpointer.save(trainer.step, last_step=False)

    return step


def titan(job: Any, folder: Path) -> Any:
    """torchtitan's own trainer on the job's shapes."""
    import torch
    from torchtitan.components.checkpoint import CheckpointManager
    from torchtitan.components.dataloader import BaseDataLoader
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.config import CompileConfig, TrainingConfig
    from torchtitan.models.common.attention import ScaledDotProductAttention
    from torchtitan.trainer import Trainer

    from etude.runtime.engine.families import model_spec
    from etude.runtime.engine.loader import NoTokenizer

    class Rows(BaseDataLoader):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseDataLoader.Config):
            vocab: int

        def __init__(self, config: Config, **given: Any) -> None:
            shape = given["local_batch_size"], given["seq_len"]
            self._rows = rows_of(config.vocab, shape, given["dp_rank"])
            places = torch.arange(given["seq_len"]) % DOCUMENT
            # Without them, attention is causal over whole rows.
            self._also = {} if on_cpu else {"positions": places.repeat(shape[0], 1)}

        def __iter__(self) -> Iterator[Any]:
            for inputs, labels in self._rows:
                yield {"input": inputs, **self._also}, labels

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Rows are random."""

    on_cpu = job.resources.device == "cpu"
    spec = model_spec(job.model, job.resources.device, job.seq_len, "logits")
    for block in spec.model.layers if on_cpu else ():
        block.attention.inner_attention = ScaledDotProductAttention.Config()
    return Trainer.Config(
        model_spec=spec,
        hf_assets_path="",
        dump_folder=str(folder),
        tokenizer=NoTokenizer(),
        dataloader=Rows.Config(vocab=job.model.vocab),
        loss=CrossEntropyLoss.Config(global_vocab_size=job.model.vocab),
        optimizer=default_adamw(lr=1e-3),
        training=TrainingConfig(
            local_batch_size=job.sequences // job.steps // job.resources.world_size,
            seq_len=job.seq_len,
            steps=job.steps,
            mixed_precision_param=job.torchtitan["training"]["mixed_precision_param"],
            disable_cuda_graphs=True,
        ),
        compile=CompileConfig(**job.torchtitan["compile"]),
        activation_checkpoint=None,
        checkpoint=CheckpointManager.Config(enable=False),
    ).build()


def plain(shape: Shape, ranks: int, rank: int) -> Callable[[], None]:
    """A step of the plain loop."""
    import torch
    import torch.nn.functional as F
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    given: dict[str, Any] = {"attn_implementation": "sdpa"}
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.dim,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.seq_len,
        **given,
    )
    model: Any = LlamaForCausalLM(config)
    if ranks > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    rows = rows_of(shape.vocab, (shape.rows // ranks, shape.seq_len), rank)

    def step() -> None:
        inputs, labels = next(rows)
        logits = model(input_ids=inputs).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def rows_of(vocab: int, shape: tuple[int, int], rank: int) -> Iterator[Any]:
    """Inputs and labels without end, int64."""
    import torch

    drawn = torch.Generator().manual_seed(rank)
    tokens = torch.randint(0, vocab, (shape[0], shape[1] + 1), generator=drawn)
    while True:
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def measure(
    folder: Path, shape: Shape, rounds: int, ranks: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each side's steps on this rank; all ranks call this together.

    Args:
        device: "cpu" or "cuda".
    """
    from etude.runtime.engine.device import prepare

    where = "cpu" if device == "cpu" else GPU
    prepare(where)
    import torch
    import torch.distributed as dist

    from etude.runtime.engine.process import join, logging_to, rank_log
    from etude.runtime.engine.train import make_trainer
    from etude.runtime.engine.trainer import Trainer

    rank = join(ranks, where)
    job = job_of(shape, ranks, WARM + rounds, device)
    if rank == 0:
        documents(folder / "noise", shape, job.sequences * shape.seq_len)
    sides = SIDES[device]
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with ExitStack() as stack:
        stack.enter_context(logging_to(rank_log(folder, rank)))
        # Makes the process group that the others use, once all ranks are here.
        own = titan(job, folder / "titan")
        stack.callback(own.close)
        dist.barrier()
        # Tensors of one process belong to one mesh.
        stack.enter_context(patch.object(Trainer, "init_distributed", lambda _: own.parallel_dims))
        ours = make_trainer(
            job, {"data:noise": folder / "noise"}, folder / "job", folder, lambda _: None, {}
        )
        steps = {
            "etude": loop(stack.enter_context(ours)),
            "torchtitan": loop(own),
        }
        if "plain loop" in sides:
            steps["plain loop"] = plain(shape, ranks, rank)
        for number in range(WARM + rounds):
            for place in range(len(sides)):
                side = sides[(number + place) % len(sides)]
                dist.barrier()
                torch.accelerator.synchronize() if device == "cuda" else None
                begin = time.perf_counter()
                steps[side]()
                torch.accelerator.synchronize() if device == "cuda" else None
                if number >= WARM:
                    seconds[side].append(time.perf_counter() - begin)
    return seconds


def on(ranks: int, rounds: int, device: str) -> dict[str, list[float]]:
    """What rank 0 of so many processes measures."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "-m", "benchmarks.training_step"]
        threads = max((os.cpu_count() or 1) // ranks, 1)
        given = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment = {**os.environ, **given}
        command += [str(rounds), "--device", device, "--folder", name]
        subprocess.run(command, check=True, env=environment)
        return json.loads((Path(name) / "seconds.json").read_text())


def table(
    found: dict[int, dict[str, list[float]]], shape: Shape, rounds: int, device: str = "cpu"
) -> str:
    """The section of the results.

    Args:
        found: ranks → what `measure` returns.
    """
    first, *others = SIDES[device]
    tokens, lines = shape.rows * shape.seq_len, []
    for ranks, seconds in found.items():
        rate = {side: tokens / median(of) for side, of in seconds.items()}
        said = " | ".join(f"{each:,.0f}" for each in rate.values())
        ratios = " | ".join(f"{rate[first] / rate[side]:.2f}" for side in others)
        lines.append(f"| {ranks} | {said} | {ratios} |")
    names = [*SIDES[device], *(f"{first} / {side}" for side in others)]
    packages = ", ".join(f"{n} {version(n)}" for n in ("torch", "torchtitan", "transformers"))
    how, asked = "fp32", f"{rounds}"
    if device == "cuda":
        import torch

        how, asked = f"bf16, compiled, {torch.cuda.get_device_name()}", f"{rounds} --device cuda"
    return (
        f"`python -m benchmarks.training_step {asked}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}; {shape.layers} layers, {shape.dim} wide, "
        f"vocabulary {shape.vocab}, {shape.rows} rows of {shape.seq_len} a step, {how}; tokens/s, "
        f"medians of {rounds} steps in turn. Load average {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores.\n\n"
        f"| ranks | {' | '.join(names)} |\n"
        f"| ---: |{' ---: |' * len(names)}\n" + "\n".join(lines)
    )


TITLES = {"cpu": "Training step", "cuda": "Training step on a GPU"}


def main(rounds: int = 21, device: str = "cpu") -> None:
    found = {ranks: on(ranks, rounds, device) for ranks in ((1, 2) if device == "cpu" else (1,))}
    write_section(TITLES[device], table(found, SHAPES[device], rounds, device))


def worker(rounds: int, device: str, folder: Path) -> None:
    """A rank of `on`."""
    seconds = measure(folder, SHAPES[device], rounds, int(os.environ["WORLD_SIZE"]), device)
    if os.environ["RANK"] == "0":
        (folder / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A step of pre-training on three sides.")
    parser.add_argument("rounds", type=int, nargs="?", default=21)
    parser.add_argument("--device", choices=SIDES, default="cpu")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        worker(asked.rounds, asked.device, asked.folder)
    else:
        main(asked.rounds, asked.device)
