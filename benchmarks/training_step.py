"""A step of pre-training: etude, torchtitan's own trainer, and a plain loop of transformers.

    python -m benchmarks.training_step [ROUNDS]

A Llama of 4 layers, 256 wide, vocabulary 2048, 8 rows of 512 tokens a step, fp32, AdamW, clipped
gradients. All sides train in one process, a step each in turn; figures are medians, and the ratio
is that of medians. On two ranks, each process has one thread.

- etude: a train job as `etude run` has it, its journal and metrics left out.
- torchtitan: its Trainer and its loop on the same model, with what a CPU needs: no compiler, no
  recomputation, the sum of gradients that gloo can compute, and torchtitan's SDPA in place of
  FlexAttention, which has no backward pass there. Its rows come from memory.
- a plain loop: transformers' Llama with SDPA, torch's fused AdamW, DistributedDataParallel on two
  ranks, rows from memory.

Attention of the last two is causal over whole rows. Etude's rows are cut from documents of 4096
tokens, which do not see each other. Writes the section "Training step" of benchmarks/RESULTS.md.
"""

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
SIDES = ("etude", "torchtitan", "plain loop")
SPEC = """recipe bench {{ seed = 1 }}
model small {{ layers = {layers}, dim = {dim}, heads = {heads}, ffn = {ffn}, vocab = {vocab} }}
tokenizer words {{ bytes }}
dataset noise {{ sample = arithmetic, documents = 100 docs }}
stage pre: train {{
  model = small, steps = {steps}, batch = {rows} seqs, seq_len = {seq_len}, lr = 1e-3, data = noise
  export = none
}}
"""


@dataclass(frozen=True)
class Shape:
    """A model, and the rows of a step."""

    layers: int = 4
    dim: int = 256
    heads: int = 4
    ffn: int = 704
    vocab: int = 2048
    rows: int = 8
    seq_len: int = 512


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


def job_of(shape: Shape, ranks: int, steps: int) -> Any:
    """The train job as etude plans it."""
    from etude.compiler.driver import analyse, compile
    from etude.compiler.plan.plan import TrainJob
    from etude.spec.load import reads

    made = compile(analyse(reads(SPEC.format(**vars(shape), steps=steps)), ranks=ranks))
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
    from torchtitan.components.checkpoint import CheckpointManager
    from torchtitan.components.dataloader import BaseDataLoader
    from torchtitan.components.loss import CrossEntropyLoss
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.config import TrainingConfig
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

        def __iter__(self) -> Iterator[Any]:
            for inputs, labels in self._rows:
                yield {"input": inputs}, labels

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Rows are random."""

    spec = model_spec(job.model, "cpu", job.seq_len, "logits")
    for block in spec.model.layers:
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
            mixed_precision_param="float32",
            disable_cuda_graphs=True,
        ),
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


def measure(folder: Path, shape: Shape, rounds: int, ranks: int = 1) -> dict[str, list[float]]:
    """Seconds of each side's steps on this rank; all ranks call this together."""
    from etude.runtime.engine.device import prepare

    prepare("cpu")
    import torch.distributed as dist

    from etude.runtime.engine.process import join, logging_to, rank_log
    from etude.runtime.engine.train import make_trainer
    from etude.runtime.engine.trainer import Trainer

    rank = join(ranks, "cpu")
    job = job_of(shape, ranks, WARM + rounds)
    if rank == 0:
        documents(folder / "noise", shape, job.sequences * shape.seq_len)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
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
            "plain loop": plain(shape, ranks, rank),
        }
        for number in range(WARM + rounds):
            for place in range(len(SIDES)):
                side = SIDES[(number + place) % len(SIDES)]
                dist.barrier()
                begin = time.perf_counter()
                steps[side]()
                if number >= WARM:
                    seconds[side].append(time.perf_counter() - begin)
    return seconds


def on(ranks: int, rounds: int) -> dict[str, list[float]]:
    """What rank 0 of so many processes measures."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "-m", "benchmarks.training_step"]
        threads = max((os.cpu_count() or 1) // ranks, 1)
        given = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment = {**os.environ, **given}
        subprocess.run([*command, str(rounds), name], check=True, env=environment)
        return json.loads((Path(name) / "seconds.json").read_text())


def table(found: dict[int, dict[str, list[float]]], shape: Shape, rounds: int) -> str:
    """The section of the results.

    Args:
        found: ranks → what `measure` returns.
    """
    tokens, lines = shape.rows * shape.seq_len, []
    for ranks, seconds in found.items():
        rate = {side: tokens / median(seconds[side]) for side in SIDES}
        said = " | ".join(f"{rate[side]:,.0f}" for side in SIDES)
        ratios = " | ".join(f"{rate['etude'] / rate[side]:.2f}" for side in SIDES[1:])
        lines.append(f"| {ranks} | {said} | {ratios} |")
    packages = ", ".join(f"{n} {version(n)}" for n in ("torch", "torchtitan", "transformers"))
    return (
        f"`python -m benchmarks.training_step {rounds}` on {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}; {shape.layers} layers, {shape.dim} wide, "
        f"vocabulary {shape.vocab}, {shape.rows} rows of {shape.seq_len} a step, fp32; tokens/s, "
        f"medians of {rounds} steps in turn. Load average {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores.\n\n"
        "| ranks | etude | torchtitan | plain loop | etude / torchtitan | etude / plain loop |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
    )


def main(rounds: int = 21) -> None:
    found = {ranks: on(ranks, rounds) for ranks in (1, 2)}
    write_section("Training step", table(found, Shape(), rounds))


def worker(rounds: int, folder: Path) -> None:
    """A rank of `on`."""
    seconds = measure(folder, Shape(), rounds, int(os.environ["WORLD_SIZE"]))
    if os.environ["RANK"] == "0":
        (folder / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        worker(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
